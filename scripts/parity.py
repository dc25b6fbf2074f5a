"""sdcore against diffusers and transformers, on this machine: `python -m scripts.parity`."""

from __future__ import annotations

import sys

import click
import numpy as np
import torch
from tqdm import tqdm

import sdcore
from scripts import reference
from sdcore.checkpoints import find_model
from sdcore.compare.parity import Gap, compare


@click.command()
@click.option("--model", default="picturebook", show_default=True, help="Bundled name or folder.")
@torch.inference_mode()
def main(model: str) -> None:
    """Compare every component and every scheduler x spacing; print a table.

    Exit status 1 where a component's relative error is above 1e-5, a run's latents are more than
    1e-4 apart, or pictures differ by more than 2 of 255.
    """
    sd = sdcore.load(model, device="cpu", dtype="float32", engine="plain")
    ref = reference.Reference(find_model(model))
    bad = 0
    versions = ", ".join(f"{k} {v}" for k, v in reference.VERSIONS.items())
    print(f"{versions}; float32, CPU\n")
    print("| component | max abs error | relative |\n|---|---|---|")
    report = compare(model, steps=1)
    for name, gap in report.components.items():
        bad += name in report.beyond
        print(f"| {name} | {gap.worst:.1e} | {gap.relative:.1e} |")

    settings = f"{reference.STEPS} steps, CFG {reference.CFG}, seeds {reference.SEEDS}"
    print(f"\nWhole runs, {settings}:\n")
    print("| scheduler | spacing | latents, max abs error | relative | pictures, of 255 |")
    print("|---|---|---|---|---|")
    for name, spacing, eta in tqdm(list(reference.runs()), desc="runs", disable=None):
        ours, theirs = (
            reference.our_run(sd, name, spacing, eta),
            ref.run(name, spacing, eta),
        )
        gap = Gap.between(ours, theirs)
        a = np.stack([np.asarray(picture) for picture in sd.decode(ours)]).astype(int)
        levels = abs(a - ref.pictures(theirs)).max()
        bad += gap.worst > 1e-4 or levels > 2
        label = name if eta is None else f"{name}, eta {eta:g}"
        print(
            f"| {label} | {spacing} | {gap.worst:.1e} | {gap.relative:.1e} | {levels} |", flush=True
        )
    if bad:
        print(f"{bad} comparisons are outside their limits", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
