"""`sdcore parity`: a checkpoint beside diffusers."""

import json

import click

from sdcore.cli.echo import echo, tell


@click.command()
@click.option("--model", default="picturebook", show_default=True, help="As for sample.")
@click.option("--steps", type=click.IntRange(1), help="Of the whole run.  [default: the family's]")
@click.option("--size", type=int, help="Side of its picture in pixels.  [default: the model's]")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def parity(model: str, steps: int | None, size: int | None, as_json: bool) -> int:
    """Compare every component of a model, and a whole run from the same noise, with diffusers.

    diffusers must be installed. Both compute in float32 on the CPU, one after the other. Exit
    status 1 where a component's relative error is above 1e-5, that of the last latents above 1e-4,
    or the pictures differ by more than 2 of 255.
    """
    from sdcore.compare.parity import compare

    result = compare(model, steps, size)
    if as_json:
        report = {
            "model": model,
            "versions": result.versions,
            "run": vars(result.ask),
            "components": {name: vars(gap) for name, gap in result.components.items()},
            "latents": vars(result.latents),
            "picture": result.levels,
            "beyond": result.beyond,
        }
        echo(json.dumps(report, indent=2))
        return 1 if result.beyond else 0
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    echo(f"{versions}; float32, CPU\n\n| component | max abs error | relative |\n|---|---|---|")
    for name, gap in result.components.items():
        echo(f"| {name} | {gap.worst:.1e} | {gap.relative:.1e} |")
    ask, gap = result.ask, result.latents
    echo(f"| latents after {ask.steps} steps | {gap.worst:.1e} | {gap.relative:.1e} |")
    echo(f"| picture of {ask.side} x {ask.side}, of 255 | {result.levels} | |")
    if result.beyond:
        tell(f"outside the limits: {'; '.join(result.beyond)}")
    return 1 if result.beyond else 0
