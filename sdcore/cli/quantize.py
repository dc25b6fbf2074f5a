"""`sdcore quantize`: a model's weights in fewer bits."""

import click

from sdcore.cli.convert import tell_vocabulary
from sdcore.cli.echo import echo, tell
from sdcore.errors import InputError


@click.command()
@click.argument("source", metavar="[IN]", required=False)
@click.argument("target", metavar="[OUT]", required=False)
@click.option(
    "--type",
    default="q4_0",
    show_default=True,
    metavar="NAME",
    help="q8_0, q5_1, q5_0, q4_1, q4_0 (GGUF); fp8, int8 (safetensors).",
)
@click.option(
    "--layout",
    default="comfy",
    show_default=True,
    metavar="NAME",
    help="comfy: the UNet, convolutions too; sdcpp: the whole model.",
)
@click.option(
    "--spelling",
    default="comfy_quant",
    show_default=True,
    metavar="NAME",
    help="Of fp8's scales: comfy_quant, or the older scaled_fp8.",
)
@click.option("--measure", is_flag=True, help="Draw with both, and print how far they differ.")
@click.option(
    "--seeds", type=click.IntRange(1), default=8, show_default=True, help="Pictures to measure by."
)
@click.option(
    "--prompt", default="a red house at sunset", show_default=True, help="What to measure by."
)
@click.option("--steps", type=click.IntRange(1), help="Of each picture.  [default: the model's]")
@click.option("--device", metavar="NAME", help="To measure on.  [default: the best]")
@click.option("--model-path", metavar="FILE", help="IN, by name.")
@click.option("--output-path", metavar="FILE", help="OUT, by name.")
def quantize(
    source: str | None,
    target: str | None,
    type: str,
    layout: str,
    spelling: str,
    measure: bool,
    seeds: int,
    prompt: str,
    steps: int | None,
    device: str | None,
    model_path: str | None,
    output_path: str | None,
) -> None:
    """Write the model IN as OUT with fewer bits a weight, and print how large that is.

    GGUF blocks (4.5 to 8.5 bits) are read by sdcore, and by ComfyUI-GGUF (comfy) or
    stable-diffusion.cpp (sdcpp); a comfy file is drawn with as --model IN --unet OUT. In a sdcpp
    file 3x3 convolutions stay 16 bits. fp8 has linear layers alone in 8 bits, as ComfyUI reads it;
    int8 has a scale for every row, and is read by sdcore. --memory quantized draws without ever
    having more than one layer in full.
    """  # fmt: skip
    from sdcore.checkpoints import open_model
    from sdcore.checkpoints.quantize import quantize as write
    from sdcore.compare.quantization import FLIPPED
    from sdcore.compare.quantization import measure as compare
    from sdcore.paths import path_of

    source, target = _one("IN", source, model_path), _one("OUT", target, output_path)
    out = path_of(target)
    checkpoint = open_model(source)
    for note in checkpoint.notes:
        tell(note)
    written = write(checkpoint, out, type, layout, spelling)
    if layout == "sdcpp":  # a whole model; others hold the UNet alone
        tell_vocabulary(checkpoint, out)
    share = written.quantized / written.weights
    echo(out)
    echo(f"{written.nbytes / 1e6:.1f} MB, {written.bits:.2f} bits a weight: "
         f"{share:.0%} of {written.weights / 1e6:.1f} M weights are {type}")  # fmt: skip
    if measure:
        loss = compare(source, out, layout == "sdcpp", seeds, prompt, steps, device)
        echo(
            f"PSNR to the unquantized over {seeds} pictures: mean {loss.mean:.1f} dB, "
            f"worst {loss.worst:.1f} dB; {loss.flipped / seeds:.0%} are other pictures "
            f"(below {FLIPPED:.0f} dB)"
        )


def _one(what: str, plain: str | None, named: str | None) -> str:
    """An argument that may be given by its place or by its name."""
    option = {"IN": "--model-path", "OUT": "--output-path"}[what]
    if plain is not None and named is not None:
        raise InputError(f"{what} is given twice: {plain} and {option} {named}")
    given = plain if named is None else named
    if given is None:
        raise InputError(f"{what} is missing: sdcore quantize IN OUT, or {option}")
    return given
