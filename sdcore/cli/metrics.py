"""`sdcore metrics`: how far two sets of pictures are from each other."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import asdict
from typing import Any

import click

from sdcore.cli.echo import echo, tell


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--weights", metavar="FILE", help="Of Inception, in torch-fidelity's form: FID, KID.")
@click.option("--lpips", metavar="FILE", help="Of AlexNet, in torchvision's form: LPIPS.")
@click.option("--clip", metavar="FOLDER", help="Of a CLIP model: how well each fits its prompt.")
@click.option("--each", "every", is_flag=True, help="Also a line for each pair.")
@click.option("--json", "as_json", is_flag=True, help="All of it as JSON.")
def metrics(
    a: str,
    b: str,
    weights: str | None,
    lpips: str | None,
    clip: str | None,
    every: bool,
    as_json: bool,
) -> None:
    """Compare the pictures of two folders, A and B: sweeps, comparisons, or any others.

    Pictures of the same path in their folder belong together; where there are none, those of the
    same prompt and seed. RMSE (of 255), PSNR and SSIM are always told. FID, KID and LPIPS need the
    extra `metrics` and the weights that you give: nothing is fetched.
    """
    from sdcore.experiments import metrics as measured

    pairs = measured.pairs_of(a, b)
    alone = [len(measured.pictures_in(each)) - len(pairs) for each in (a, b)]
    if any(alone):
        tell(f"{alone[0]} pictures of {a} and {alone[1]} of {b} belong to none of the other")
    rows = [measured.scores(pair) for pair in pairs]
    sets: dict[str, Any] = {name: statistics.fmean(getattr(row, name) for row in rows)
                            for name in ("rmse", "ssim")}  # fmt: skip
    finite = [row.psnr for row in rows if math.isfinite(row.psnr)]
    sets["psnr"] = statistics.fmean(finite) if finite else math.inf
    sets["same"] = len(rows) - len(finite)
    if lpips is not None:
        sets["lpips"] = statistics.fmean(measured.lpips(pairs, lpips))
    if clip is not None:
        for name, files in (("clip_a", [p.a for p in pairs]), ("clip_b", [p.b for p in pairs])):
            sets[name] = statistics.fmean(measured.clip_scores(files, clip))
    if weights is not None:
        one, other = (list(measured.pictures_in(each).values()) for each in (a, b))
        sets |= measured.inception_distances(one, other, weights)
    if as_json:
        plain = [{k: None if v == math.inf else v for k, v in asdict(row).items()} for row in rows]
        whole = {k: None if v == math.inf else v for k, v in sets.items()}
        echo(json.dumps({"pairs": len(pairs), **whole, "each": plain}, indent=1))
        return
    if every:
        for row in rows:
            echo(f"{row.name}  RMSE {row.rmse:.3f}  PSNR {row.psnr:.2f}  SSIM {row.ssim:.4f}")
    same = sets.pop("same")
    echo(f"{len(pairs)} pair{'s' * (len(pairs) != 1)}, {same} of them the same to the bit")
    if same == len(pairs):
        del sets["psnr"]
    for name, value in sets.items():
        unit = {"rmse": " of 255", "psnr": " dB, of those that differ"}.get(name, "")
        echo(f"{name.replace('_', ' '):<8}{value:.4f}{unit}")
