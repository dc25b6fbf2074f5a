"""The HTTP server: one worker that draws, and several faces over it.

    sdcore serve                          # see its --help
    uvicorn sdcore.server:app             # the same, told by SDCORE_... variables: `options.py`

`worker.py` draws; `asked.py` is the one way from what a request says to what is drawn; each face is
a file of routes. Nothing of it is imported by `import sdcore`.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module 'sdcore.server' has no attribute {name!r}")
    from sdcore.server.application import from_environment

    return from_environment()
