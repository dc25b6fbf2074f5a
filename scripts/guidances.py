"""Every guidance on the bundled model, from weak to strong: `python -m scripts.guidances`.

Draws held-out prompts and writes docs/guidances.md and docs/guidances.png: how many pictures follow
their prompts (the examiner's "all right", see scripts/adherence.py), and how far the pictures of
one prompt are from each other. Each row is kept as one line of JSON in the work folder as soon as
it is drawn; after an interruption the same command goes on. The examiner is trained at first use,
which takes some minutes; the plot needs matplotlib (the extra `plot`).
"""

from __future__ import annotations

import copy
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import click
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

import sdcore
from scripts.adherence import descriptions, mark, shares
from scripts.guidance_sweeps import PLAN, SWEEPS, Sweep, recoloured
from scripts.train.examiner import Examiner, load_examiner, read, specimen
from scripts.train.world import Description, canonical_caption
from sdcore.images import to_tensor
from sdcore.lab.plot import check_plot
from sdcore.run import Run
from sdcore.writing import write_whole

DOCS = Path(__file__).parents[1] / "docs"
SCHEDULER = "euler"  # it steps along eps from x0, as CFG++ asks
WEAKER = 0.2  # the noise in the weak model's weights, in standard deviations of each tensor
SHOWN = ("object", "colour", "all right")


# Drawing


def weaker(sd: sdcore.StableDiffusion) -> sdcore.StableDiffusion:
    """The model with noise in the UNet's weights."""
    unet = copy.deepcopy(sd.unet)
    generator = torch.Generator().manual_seed(0)
    for weight in unet.parameters():
        if weight.ndim > 1:
            noise = torch.randn(weight.shape, generator=generator).to(weight)
            weight.data += WEAKER * weight.std() * noise
    return sd.with_modules({"unet": unet})


@dataclass(frozen=True)
class Bench:
    """What all rows have in common."""

    sd: sdcore.StableDiffusion
    weak: sdcore.StableDiffusion
    examiner: Examiner
    asked: Sequence[Description]
    seeds: tuple[int, ...]
    steps: int
    batch: int

    def run(self, sweep: Sweep, number: float, asked: Sequence[Description]) -> Run:
        """One loop for these prompts, each with every seed."""
        options: dict[str, Any] = {
            "seeds": self.seeds, "steps": self.steps, "scheduler": SCHEDULER,
        }  # fmt: skip
        prompts = [canonical_caption(each) for each in asked]
        negative = recoloured(asked[0]) if sweep.negative else None
        guidance = sweep.guidance(number, asked[0])
        run = self.sd.prepare(prompts, negative, guidance=guidance, **options)
        if sweep.name == "auto":
            other = self.weak.prepare(prompts, cfg=1, **options)
            run = replace(run, answers={"weak": other.denoise})
        return run

    def runs(self, sweep: Sweep, number: float) -> Iterator[Run]:
        alone = sweep.negative or sweep.name == "composed"  # words of each prompt's own
        size = 1 if alone else max(1, self.batch // len(self.seeds))
        for start in range(0, len(self.asked), size):
            yield self.run(sweep, number, self.asked[start : start + size])

    @torch.inference_mode()
    def draw(self, sweep: Sweep, number: float) -> tuple[list[Image.Image], float]:
        """The pictures, prompt by prompt, and the mean evaluations of a network for each."""
        pictures: list[Image.Image] = []
        nfe = 0
        title = f"{sweep.name} {number:g}"
        with tqdm(total=len(self.asked) * len(self.seeds), desc=title, disable=None) as bar:
            for run in self.runs(sweep, number):
                *_, last = run
                drawn = run.decode(last.x_next)
                pictures, nfe = pictures + drawn, nfe + run.nfe * len(drawn)
                bar.update(len(drawn))
        return pictures, nfe / len(pictures)

    def rendered(self) -> list[Image.Image]:
        """The renderer's own pictures of the same prompts, as many of each."""
        return [
            Image.fromarray(specimen(each, [4_000, index, seed]).pixels)
            for index, each in enumerate(self.asked) for seed in self.seeds
        ]  # fmt: skip

    def measured(self, pictures: Sequence[Image.Image]) -> dict[str, Any]:
        """Shares of what is right, and the spread."""
        asked = [each for each in self.asked for _ in self.seeds]
        readings = read(self.examiner, pictures)
        right = shares([mark(d, r) for d, r in zip(asked, readings, strict=True)])
        latents = torch.cat([self.latents(picture) for picture in pictures])
        of_prompt = latents.reshape(len(self.asked), len(self.seeds), *latents.shape[1:])
        return {"right": {name: right[name] for name in SHOWN}, "spread": spread(of_prompt)}

    @torch.inference_mode()
    def latents(self, picture: Image.Image) -> Tensor:
        x = to_tensor(picture).to(self.sd.device, self.sd.dtype)
        return self.sd.vae.encode(x).mean.float()


def spread(latents: Tensor) -> float:
    """Mean over prompts and pairs of seeds of the root mean square difference.

    latents: [prompts, seeds, C, h, w], two seeds or more, of unit variance: what has nothing in
    common is about sqrt(2) apart.
    """
    pairs = [
        (latents[:, a] - latents[:, b]).square().mean((1, 2, 3)).sqrt()
        for a, b in combinations(range(latents.shape[1]), 2)
    ]
    return torch.stack(pairs).mean().item()


# Rows


@dataclass(frozen=True)
class Row:
    """A line of the table. how: whatever else decides it; rows of another `how` are not shown."""

    name: str
    written: str
    number: float
    nfe: float
    right: dict[str, float]
    spread: float
    how: dict[str, Any]


def kept(file: Path, how: dict[str, Any]) -> list[Row]:
    """The rows of a file that were made like this; a line that was cut off is left out."""
    rows: list[Row] = []
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            row = Row(**json.loads(line))
        except (json.JSONDecodeError, TypeError):
            continue
        if row.how == how:
            rows.append(row)
    return rows


def add(file: Path, row: Row) -> None:
    whole = not file.exists() or file.read_bytes()[-1:] in (b"", b"\n")
    with file.open("a") as out:
        out.write(("" if whole else "\n") + json.dumps(asdict(row)) + "\n")


def missing(rows: Sequence[Row]) -> list[tuple[Sweep, float]]:
    """What is left to draw."""
    done = {(row.name, row.number) for row in rows}
    return [(sweep, number) for sweep, number in PLAN if (sweep.name, number) not in done]


# The page


def page(rows: Sequence[Row], how: dict[str, Any]) -> str:
    count = how["prompts"] * len(how["seeds"])
    error = 100 * math.sqrt(0.25 / count)
    left = len(missing(rows))
    lines = [
        "# What each guidance does to the pictures",
        "",
        "Written by `python -m scripts.guidances` (make guidances), with the bundled model "
        f"`picturebook`: {count} pictures a row ({how['prompts']} held-out prompts, seeds "
        f"{', '.join(map(str, how['seeds']))}), {how['steps']} steps of {SCHEDULER}."
        + (f" {left} of {len(PLAN)} rows are not drawn yet." if left else ""),
        "",
        "![Adherence and spread against scale](guidances.png)",
        "",
        "- **all right**: pictures in which everything is as the prompt says, in percent, by the "
        f"examiner of `make adherence`. The standard error is up to {error:.0f}: the rows show "
        "which way a guidance goes, not its last percent. All rows have the same prompts and "
        "seeds.",
        "- **object, colour**: the same for each thing asked for.",
        "- **spread**: how far the pictures of one prompt are from each other: the root mean "
        "square difference of the VAE's latents, mean over prompts and pairs of seeds. Less means "
        "less variety; much more than the renderer's, pictures that fall apart.",
        "- **NFE**: evaluations of a network for one picture.",
        f"- The weak model of `auto` is the bundled UNet with noise of {WEAKER:g} standard "
        "deviations in its weights. The negative prompt (`cfg, negative` and `perp_neg`) is the "
        "prompt with its things in other colours. `composed` is told the prompt, at half the "
        "weight, and each of its things by itself. The scale of `varying` rises from 1 to 2s - 1 "
        "along log sigma, with the mean s that its panel shows.",
        "",
        "| guidance | written | NFE | object | colour | all right | spread |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    order = {name: i for i, name in enumerate(("renderer", "off", *(s.name for s in SWEEPS)))}
    for row in sorted(rows, key=lambda row: (order[row.name], row.number)):
        written = f"`{row.written}`" if row.written else "the pictures that were learned from"
        right = " | ".join(f"{100 * row.right[name]:.0f}" for name in SHOWN)
        lines.append(f"| {row.name} | {written} | {row.nfe:g} | {right} | {row.spread:.2f} |")
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[Row], path: Path) -> None:
    """A panel for each guidance: all right (left axis) and spread (right) against its number."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 9), layout="constrained")
    panels = figure.subplots(3, 5, sharey=True)
    flat = {row.name: row for row in rows if row.name == "off"}
    top = 1.1 * max((row.spread for row in rows), default=1)
    for axes, sweep in zip(panels.flat, SWEEPS, strict=True):
        mine = sorted((row for row in rows if row.name == sweep.name), key=lambda r: r.number)
        numbers = [row.number for row in mine]
        axes.plot(numbers, [100 * row.right["all right"] for row in mine], "o-", color="tab:blue")
        other = axes.twinx()
        other.plot(numbers, [row.spread for row in mine], "s--", color="tab:red")
        for row in flat.values():
            axes.axhline(100 * row.right["all right"], color="tab:blue", lw=0.7)
            other.axhline(row.spread, color="tab:red", lw=0.7)
        option = sweep.written.split("{")[0].rsplit(":", 1)[-1].split("=")[0].split(",")[-1]
        axes.set(title=sweep.name, xlabel=option, xticks=sweep.numbers, ylim=(-4, 104))
        axes.set_xlim(0, 1.08 * sweep.numbers[-1])
        other.set_ylim(-0.04 * top, top)
    figure.suptitle(
        "all right, % (blue, left) and spread (red, right); thin lines: without guidance"
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_whole(path, buffer.getvalue())


# The command


@click.command()
@click.option("--prompts", type=click.IntRange(1), default=10, show_default=True)
@click.option(
    "--seeds", type=click.IntRange(2), default=2, show_default=True, help="For each prompt."
)
@click.option("--steps", type=click.IntRange(1), default=10, show_default=True)
@click.option("--device", help="cpu, cuda ...; chosen by itself when not given.")
@click.option(
    "--batch", type=click.IntRange(1), default=8, show_default=True, help="Drawn together."
)
@click.option(
    "--work", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/guidances"),
    show_default=True, help="Folder that keeps the rows.",
)  # fmt: skip
@click.option(
    "--examiner", "examiner_work", type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/examiner"), show_default=True, help="Folder that keeps the examiner.",
)  # fmt: skip
@click.option(
    "--docs", type=click.Path(path_type=Path, file_okay=False), default=DOCS,
    help="Where guidances.md and guidances.png go; default: the docs of this checkout.",
)  # fmt: skip
@click.option("--now", is_flag=True, help="Draw nothing: write the page from the rows there are.")
def main(docs: Path, **options: Any) -> None:
    """Draw what is not drawn yet, print the rows, and write the page."""
    try:
        check_plot(docs / "guidances.png")
        rows, how = _rows(**options)
        write_whole(docs / "guidances.md", page(rows, how).encode())
        plot(rows, docs / "guidances.png")
        click.echo(f"{docs / 'guidances.md'}: {len(rows)} rows")
    except sdcore.InputError as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        raise click.ClickException("stopped; the same command goes on") from None


def _rows(
    prompts: int,
    seeds: int,
    steps: int,
    device: str | None,
    batch: int,
    work: Path,
    examiner_work: Path,
    now: bool,
) -> tuple[list[Row], dict[str, Any]]:
    """Every row, those that were kept and those drawn now; and how they were made."""
    sd = sdcore.load("picturebook", device)
    how: dict[str, Any] = {
        "prompts": prompts, "seeds": list(range(seeds)), "steps": steps, "weaker": WEAKER,
        "scheduler": SCHEDULER, "model": dict(sd.digests),
    }  # fmt: skip
    file = work / "rows.jsonl"
    rows = kept(file, how)
    if now:
        return rows, how
    work.mkdir(parents=True, exist_ok=True)
    asked = descriptions(prompts, held_out=True)
    examiner = load_examiner(examiner_work)
    bench = Bench(sd, weaker(sd), examiner, asked, tuple(range(seeds)), steps, batch)

    def show(sweep_name: str, written: str, number: float, drawn: tuple[list[Any], float]) -> None:
        row = Row(sweep_name, written, number, drawn[1], **bench.measured(drawn[0]), how=how)
        add(file, row)
        rows.append(row)
        right = f"{100 * row.right['all right']:.0f} % all right"
        click.echo(f"{row.name:14} {number:<5g} NFE {row.nfe:<4g} {right}, spread {row.spread:.2f}")

    if "renderer" not in {row.name for row in rows}:
        show("renderer", "", 0, (bench.rendered(), 0))
    for sweep, number in missing(rows):
        show(sweep.name, sweep.form(number), number, bench.draw(sweep, number))
    return rows, how


if __name__ == "__main__":
    main()
