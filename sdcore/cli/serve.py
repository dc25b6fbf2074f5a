"""`sdcore serve`: pictures over HTTP."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click

from sdcore.cli.echo import echo
from sdcore.cli.grouped import Grouped
from sdcore.cli.option_list import declared
from sdcore.errors import InputError
from sdcore.picture_options import OPTIONS
from sdcore.server.limits import Limits

_LOADING = ("device", "dtype", "memory", "engine")
_BOUNDS = {  # what each field of `Limits` is in the help; the defaults are there
    "work": "In the queue, in million pixels times evaluations; 512x512 in 50 guided steps is 26.",
    "side": "Pixels.",
    "steps": "Of one picture.",
    "questions": "To the network, for one picture.",
    "pictures": "Of one request.",
    "text": "Letters, of any text of any face.",
    "body": "Bytes of a request.",
    "decoded": "Pixels of a picture in a request.",
    "jobs": "Remembered after their end.",
    "kept": "Bytes of what they hold.",
    "seconds": "For which they are remembered.",
}


def _bounds() -> Iterator[click.Option]:
    limits = Limits()
    for name, what in _BOUNDS.items():
        default = getattr(limits, name)
        yield click.Option([f"--max-{name}"], type=type(default), default=default,
                           show_default=True, help=what)  # fmt: skip


GROUPS = {
    "How models are loaded": [declared(name, OPTIONS[name]) for name in _LOADING],
    "The most that is taken": [*_bounds()],
}


@click.command(cls=Grouped, groups=GROUPS)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=int, default=7860, show_default=True, help="0: any that is free.")
@click.option(
    "--models", metavar="PLACE", multiple=True,
    help="A model, or a folder of models; may be repeated, the first is the default.  "
    "[default: picturebook]",
)  # fmt: skip
@click.option("--lora-dir", metavar="FOLDER", multiple=True, help="Adapters, by their names.")
@click.option(
    "--embedding-dir", metavar="FOLDER", multiple=True, help="Learned words, by their names."
)
@click.option("--loaded", type=int, default=1, show_default=True, help="Models kept in memory.")
@click.option("--key-file", metavar="FILE", help="Holds the key that requests bring; else "
              "SDCORE_API_KEY does.")  # fmt: skip
@click.option("--no-auth", is_flag=True, help="Listen to others without any key.")
@click.option("--host-allowed", metavar="NAME", multiple=True, help="Another name of this server, "
              "behind a proxy.")  # fmt: skip
@click.option("--cors", metavar="ORIGIN", multiple=True, help="A site whose pages may ask.")
@click.option(
    "--batch", type=int, default=1, show_default=True,
    help="Pictures of compatible requests that are drawn at once.",
)  # fmt: skip
@click.option(
    "--max-prompt", type=int, default=500, show_default=True, help="Letters, of /generate."
)
@click.option("--grace", type=float, default=30.0, show_default=True, help="Seconds to finish in, "
              "when told to stop.")  # fmt: skip
@click.option("--lenient", is_flag=True, help="Warn of fields that cannot be honoured.")
@click.option(
    "--filter", metavar="FILE", multiple=True, help="A filter of your own over every picture."
)
@click.option("--safety", metavar="FOLDER", help="The safety checker in the folder of an SD 1.x.")
@click.option(
    "--safety-action", type=click.Choice(["black", "blur", "drop", "flag"]),
    help="What becomes of a picture that it flags.  [default: black]",
)  # fmt: skip
@click.option("--no-mark", is_flag=True, help="Leave out the mark (XMP) that a model made it.")
@click.option("--no-settings", is_flag=True, help="Leave out of pictures what rerun reads.")
def serve(**options: Any) -> None:
    """Draw over HTTP, until Ctrl-C or SIGTERM. The page is at /: sdcore ui opens it.

    POST /generate; OpenAI's images API at /v1; AUTOMATIC1111's at /sdapi/v1; /health and /metrics.
    A request names models and adapters by the names of these lists, and never a file. On another
    address than this machine's own a key is needed, or --no-auth.
    """
    run(options, lambda line: echo(line, err=True))


def run(options: Mapping[str, Any], tell: Callable[[str], None]) -> None:
    """Serve, by the options of the command, to the end. tell: gets the address, once it listens.

    Raises InputError.
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(f'{error.name} is not installed: pip install "sdcore[server]"') from None
    from sdcore.server.options import ServerOptions, check_options, read_key
    from sdcore.server.serve import serve as until_told

    bounds = {name: options[f"max_{name}"] for name in _BOUNDS}
    chosen = ServerOptions(
        host=options["host"],
        port=options["port"],
        models=options["models"],
        lora_dir=options["lora_dir"],
        embedding_dir=options["embedding_dir"],
        loaded=options["loaded"],
        source=_source(options),
        key=read_key(options["key_file"]),
        cors=options["cors"],
        host_allowed=options["host_allowed"],
        max_prompt=options["max_prompt"],
        lenient=options["lenient"],
        grace=options["grace"],
        filter=options["filter"],
        safety=options["safety"],
        safety_action=options["safety_action"],
        no_mark=options["no_mark"],
        no_settings=options["no_settings"],
        limits=Limits(batch=options["batch"], **bounds),
    )
    until_told(check_options(chosen, options["no_auth"]), tell)


def _source(options: Mapping[str, Any]) -> dict[str, Any]:
    """How models are loaded; each of these has one value here."""
    from sdcore.chosen import AUTO

    source: dict[str, Any] = {}
    for name in _LOADING:
        values = options[name] or ()
        if len(values) > 1:
            raise InputError(f"--{name} is given {len(values)} times")
        if values and values[0] != AUTO:
            source[name] = values[0]
    return source
