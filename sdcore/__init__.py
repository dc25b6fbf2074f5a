"""sdcore: a denoising-loop engine for Stable Diffusion, written to be read.

    import sdcore
    sd = sdcore.load()                                     # or a folder, a file, a hub id
    run = sd.prepare("a red house at sunset", seeds=[0], steps=20)
    for step in run:                                       # look, break, or set step.x_next
        ...
    picture = sd.decode(step.x_next)[0]

Names are looked up on first use, so that `import sdcore` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sdcore.garbage import collection_paused
from sdcore.version import VERSION

if TYPE_CHECKING:
    from sdcore.allocator import tune_allocator
    from sdcore.errors import InputError
    from sdcore.loading import load
    from sdcore.pipeline import StableDiffusion
    from sdcore.run import Run
    from sdcore.sampling import Interval, Prediction, State, Step, sample
    from sdcore.settings import Settings

__version__ = VERSION

__all__ = [
    "load",
    "StableDiffusion",
    "Run",
    "sample",
    "Step",
    "State",
    "Prediction",
    "Interval",
    "Settings",
    "InputError",
    "tune_allocator",
]

_HOMES = {
    "load": "sdcore.loading",
    "StableDiffusion": "sdcore.pipeline",
    "Run": "sdcore.run",
    "sample": "sdcore.sampling",
    "Step": "sdcore.sampling",
    "State": "sdcore.sampling",
    "Prediction": "sdcore.sampling",
    "Interval": "sdcore.sampling",
    "Settings": "sdcore.settings",
    "InputError": "sdcore.errors",
    "tune_allocator": "sdcore.allocator",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sdcore' has no attribute {name!r}")
    with collection_paused():
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
