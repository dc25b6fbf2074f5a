"""`sdcore invert` and `sdcore likelihood`: a picture through the model, upwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from sdcore.cli.echo import echo, tell
from sdcore.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from sdcore.run import Run

METHODS = {  # and the scheduler that goes down again
    "plain": "euler",
    "fixed-point": "euler",
    "exact": "belm",
    "edit-friendly": "euler_a",
}


def _of_a_picture(command: Callable[..., None]) -> Callable[..., None]:
    """The options of both commands."""
    options = [
        click.argument("picture"),
        click.option("--prompt", default="", metavar="TEXT", help="What it shows."),
        click.option("--model", default="picturebook", metavar="MODEL", help="As for sample."),
        click.option("--device", metavar="NAME", help="As for sample."),
        click.option("--dtype", metavar="NAME", help="As for sample."),
        click.option("--steps", type=int, default=50, show_default=True, help="How many steps."),
        click.option("--spacing", metavar="NAME", help="As for sample."),
        click.option("--cfg", type=float, default=1.0, show_default=True, help="Guidance scale."),
        click.option("--width", type=int, help="As for sample.  [default: the picture's]"),
        click.option("--height", type=int, help="The same."),
        click.option("--fit", metavar="HOW", help="As for sample.  [default: crop]"),
        click.option("--seed", type=int, default=0, show_default=True, help="Of what is drawn."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@_of_a_picture
@click.option("--method", type=click.Choice([*METHODS]), default="exact", show_default=True,
              help="How it goes up.")  # fmt: skip
@click.option("--iterations", type=int, default=5, show_default=True, help="Of a fixed point.")
@click.option("--out", default="inverted.safetensors", show_default=True, metavar="FILE",
              help="The state at the noise.")  # fmt: skip
def invert(picture: str, method: str, iterations: int, out: str, **options: Any) -> None:
    """Carry PICTURE up to the noise that it is drawn from, and write the state there.

    Prints its path, the residual of the last correction (fixed-point), and how far the latents are
    from PICTURE's when drawn again: max abs error. `sdcore resume FILE --prompt "other words"`
    draws it with other words.
    """
    import torch

    from sdcore.inversion import inverted
    from sdcore.paths import path_of
    from sdcore.sampling import sample
    from sdcore.writing import check_target

    if iterations < 0:
        raise InputError(f"iterations are at least 0, not {iterations}")
    target = path_of(out)
    check_target(target)
    run, latents = _prepared(picture, METHODS[method], **options)
    with torch.inference_mode():
        there = inverted(
            run.denoise, latents, run.sigmas, run.solver, method, run.noise, iterations
        )
        *_, last = sample(
            run.denoise,
            there.state,
            run.sigmas,
            run.solver,
            run.noise if there.noise is None else there.noise,
        )
    draws = () if there.noise is None else there.noise.draws
    there.state.save(target, [each.to_json() for each in run.settings], draws, run.sigmas)
    echo(target)
    if there.residual is not None:
        echo(f"residual {there.residual:.3g}")
    echo(f"round trip {(last.x_next - latents).abs().max().item():.3g}")


@click.command()
@_of_a_picture
@click.option("--probes", type=int, default=1, show_default=True, help="Of Hutchinson's estimate.")
def likelihood(picture: str, probes: int, **options: Any) -> None:
    """Print log p of PICTURE's latents to the model: in nats, and in bits a value.

    By the probability flow, with rk4, and Hutchinson's estimate of its divergence; p is the density
    of the data with as much noise as the lowest sigma above 0.
    """
    import torch

    from sdcore.inversion import rising
    from sdcore.likelihood import Hutchinson, log_likelihood
    from sdcore.process import process_of

    if probes < 1:
        raise InputError(f"probes are at least 1, not {probes}")
    run, latents = _prepared(picture, "rk4", **options)
    process = process_of(run.scheduler.prediction_type, run.plan)
    up = rising([sigma for sigma in run.sigmas if sigma > 0])
    with torch.no_grad():
        hutchinson = Hutchinson(probes, options["seed"])
        done = log_likelihood(run.denoise, latents, up, run.solver, hutchinson, process=process)
    echo(f"sigma {up[0]:.6g}")
    echo(f"nats {done.log_density.item():.6g}")
    echo(f"bits {done.bits.item():.6g}")


def _prepared(picture: str, scheduler: str, **options: Any) -> tuple[Run, Tensor]:
    """A run of this size, and the likeliest latents of the picture."""
    import torch

    from sdcore.complete import complete
    from sdcore.inpainting import open_canvas
    from sdcore.loading import load
    from sdcore.prepare import prepare
    from sdcore.request import Request, parts_of

    fit = options.pop("fit")
    prompt, seed = options.pop("prompt"), options.pop("seed")
    source = {name: options.pop(name) for name in ("model", "device", "dtype")}
    canvas = open_canvas(picture, fit="crop" if fit is None else fit)
    networks = load(**{name: value for name, value in source.items() if value}, engine="plain")
    factor = networks.vae.config.factor
    for name, side in (("width", canvas.image.width), ("height", canvas.image.height)):
        options[name] = side - side % factor if options[name] is None else options[name]
    request = Request(prompt, seeds=seed, scheduler=scheduler, **options)
    parts = parts_of(request, networks)
    run = prepare(networks, complete(request, networks, parts), parts)
    for line in run.warnings:
        tell(line)
    with torch.inference_mode(False), torch.no_grad():
        canvas = canvas.scaled(options["width"], options["height"])
        return run, canvas.latents(networks.vae, torch.zeros_like(run.start.x))
