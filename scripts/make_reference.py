"""Record what diffusers and transformers make of the bundled model, in tests/reference/.

    python -m scripts.make_reference

Tests compare sdcore with these tensors where neither package is installed.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch
from safetensors.torch import save
from tqdm import tqdm

import sdcore
from scripts import reference
from sdcore.checkpoints import find_model
from sdcore.writing import write_whole

FOLDER = Path(__file__).parents[1] / "tests" / "reference"


def key(name: str, spacing: str, eta: float | None) -> str:
    """The name of a run's tensor in the file."""
    return f"run {name} {spacing}" + ("" if eta is None else f" eta {eta:g}")


@click.command()
@click.option("--model", default="picturebook", show_default=True, help="Bundled name or folder.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=FOLDER)
@torch.inference_mode()
def main(model: str, out: Path) -> None:
    """Write OUT/picturebook.safetensors: final latents of every run, and components' outputs."""
    ref = reference.Reference(find_model(model))
    inputs = reference.component_inputs(
        sdcore.load(model, device="cpu", dtype="float32", engine="plain")
    )
    # Half-size pictures would be another model's business; one of the two images is enough here.
    tensors = {f"in {k}": v.clone() for k, v in inputs.items() if k == "x"}
    for name, value in reference.reference_components(ref, inputs).items():
        tensors[f"out {name}"] = value[:1].contiguous().clone()
    for run in tqdm(list(reference.runs()), desc="runs", disable=None):
        tensors[key(*run)] = ref.run(*run).contiguous()
    out.mkdir(parents=True, exist_ok=True)
    path = out / "picturebook.safetensors"
    facts = {"cfg": reference.CFG, "steps": reference.STEPS, "seeds": reference.SEEDS}
    facts |= {"prompt": reference.PROMPT, "scheduler_config": reference.SD15}
    settings = json.dumps(facts)
    write_whole(path, save(tensors, {**reference.VERSIONS, "settings": settings}))
    print(path)


if __name__ == "__main__":
    main()
