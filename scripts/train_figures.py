"""The figures of docs/training.md, each by a command.

python -m scripts.train_figures one        # one picture learned by a LoRA: seconds, loss, distance
python -m scripts.train_figures readers    # files written, and who reads them as they were meant
python -m scripts.train_figures resume     # stopped and gone on with, against never stopped
python -m scripts.train_figures step       # a step of SD 1.5's size, beside diffusers' recipe
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

import sdcore
from scripts.families import FAMILIES, write
from scripts.train.world import Description, Thing, draw
from scripts.train_step import step
from sdcore.checkpoints.ldm_write import unet_to_ldm
from sdcore.images import open_picture, to_tensor
from sdcore.networks import Networks
from sdcore.training.full import FullTraining
from sdcore.training.lora import LoRATraining
from sdcore.training.pictures import drawn
from sdcore.training.plan import Plan
from sdcore.training.process import readied
from sdcore.training.record import LOG
from sdcore.training.signals import Stopped
from sdcore.training.train import train
from sdcore.training.updates import TrainStep
from sdcore.training.watcher import Silent
from sdcore.training.word import WordTraining

CAPTION = "a big blue boat at sunset"
HOW: dict[str, Any] = {"scheduler": "dpmpp_2m", "spacing": "karras", "steps": 20, "cfg": 7.5}


@click.group()
def main() -> None:
    """Print the figures of docs/training.md."""


# --- one picture ---------------------------------------------------------------------------------


@main.command()
@click.option("--steps", default=100, show_default=True)
def one(steps: int) -> None:
    """One picture learned by a LoRA on the bundled model."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    with tempfile.TemporaryDirectory() as place:
        data, out = Path(place) / "data", Path(place) / "out"
        data.mkdir()
        shown = Description("sunset", (Thing("boat", "blue", "big"),), place="middle")
        draw(shown, np.random.default_rng(5), 128).save(data / "boat.png")
        (data / "boat.txt").write_text(CAPTION)
        sd = sdcore.load(device="cpu")
        # The usual LoRA, of convolutions too; a small model takes a higher rate than 1e-4.
        plan = Plan(targets="all", steps=steps, batch=2, lr=2e-3, look_every=10 * steps,
                    prompts=(CAPTION,))  # fmt: skip
        begin, work = time.perf_counter(), time.process_time()
        path = train(sd, data, plan, out)
        seconds, work = time.perf_counter() - begin, time.process_time() - work
        rows = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
        first, last = (row["measured"]["loss"] for row in rows if "measured" in row)
        target = sd.vae.encode(to_tensor(open_picture(data / "boat.png"))).mean
        before, after = (_distance(model, target) for model in (sd, sd.with_lora(path)))
    threads = torch.get_num_threads()
    print(f"--targets all --lr 2e-3 --batch 2 --steps {steps}: {seconds:.0f} s, "
          f"{work:.0f} s of processor time, {threads} threads")  # fmt: skip
    print(f"loss on the grid, mean of 8 levels: {np.mean(first):.4f} -> {np.mean(last):.4f} "
          f"({100 * (np.mean(last) / np.mean(first) - 1):+.0f} %)")  # fmt: skip
    print(f"distance of what is drawn, RMSE of the latents: {before:.3f} -> {after:.3f}")


@torch.no_grad()
def _distance(networks: Networks, target: Tensor) -> float:
    """From the picture to those of its caption with seeds 0 to 3."""
    found = []
    for picture, _ in drawn(networks, [CAPTION], range(4), **HOW):
        latents = networks.vae.encode(to_tensor(picture)).mean
        found.append((latents - target).square().mean().sqrt().item())
    return float(np.mean(found))


# --- who reads what ------------------------------------------------------------------------------


@main.command()
@torch.no_grad()
def readers() -> None:
    """Files written x readers: the largest difference of what the networks say."""
    import diffusers

    diffusers.logging.set_verbosity_error()
    print(
        "| family | file | layout | sdcore | diffusers | kohya's keys |\n|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as place:
        for family in ("SD 1.x", "SDXL"):
            folder = write(Path(place) / family.replace(" ", ""), FAMILIES[family])
            sd = sdcore.load(folder, device="cpu", engine="plain")
            for layout in ("kohya", "diffusers"):
                for what, row in _written(sd, layout, Path(place), folder):
                    print(f"| {family} | {what} | {layout} | {' | '.join(row)} |")


def _written(
    sd: Any, layout: str, place: Path, folder: Path
) -> Iterator[tuple[str, tuple[str, str, str]]]:
    import diffusers

    stem = f"{layout}-{len(sd.readers)}"

    def pipe(where: Path = folder) -> Any:
        return diffusers.DiffusionPipeline.from_pretrained(where)

    for what, dora in (("LoRA", False), ("DoRA", True)):
        plan = Plan(rank=3, alpha=2.0, text=True, layout=layout, save_dtype="float32", dora=dora)
        training = LoRATraining(readied(sd, replace(plan, prediction_type="epsilon")), plan)
        for i, layer in enumerate(training.layers.values()):
            layer.up.copy_(0.1 * _rand(*layer.up.shape, seed=i))
        path = training.write(place / f"{what}-{stem}", {})
        wanted = _asked(training.networks.unet, sd)
        theirs = pipe()
        theirs.load_lora_weights(path)
        keys = {key.split(".")[0] for key in load_file(path)}
        kohya = "all" if keys <= _kohyas_keys(sd) else "NOT ALL"
        yield what, (
            _far(_asked(training.drawing(path).unet, sd), wanted),
            _far(_asked_theirs(theirs.unet, sd), wanted), kohya if layout == "kohya" else "-",
        )  # fmt: skip
    plan = Plan(method="embedding", word="<new>", layout=layout, save_dtype="float32", vectors=2)
    words = WordTraining(sd, plan)
    for i, rows in enumerate(words.rows.values()):
        rows.rows.copy_(_rand(*rows.rows.shape, seed=i))
    path = words.write(place / f"word-{stem}", {})
    wanted = _read(words.networks)
    far = "two files there" if len(sd.readers) > 1 else _theirs_of_a_word(pipe(), path, wanted)
    yield "word", (_far(_read(words.drawing(path)), wanted), far, "-")
    plan = Plan(method="full", layout=layout, save_dtype="float32")
    full = FullTraining(sd, plan)
    for i, parameter in enumerate(full.trained["unet"].parameters()):
        parameter.add_(0.02 * _rand(*parameter.shape, seed=i))
    path = full.write(place / f"full-{stem}", {})
    wanted = _asked(full.networks.unet, sd)
    if path.is_dir():
        back = _asked(sdcore.load(path, device="cpu", engine="plain").unet, sd)
        yield "model", (_far(back, wanted), _far(_asked_theirs(pipe(path).unet, sd), wanted), "-")
    else:
        source = {"unet": str(path), "device": "cpu", "engine": "plain"}
        back = _asked(sdcore.load(folder, **source).unet, sd)
        yield "model", (_far(back, wanted), "published sizes only", "-")


def _kohyas_keys(sd: Any) -> set[str]:
    """Every name by its trainer's rule: the base model's own keys, of SDXL those of its one file,
    with _ for each point."""
    several = len(sd.readers) > 1
    state = sd.unet.state_dict()
    names = [f"lora_unet_{name}" for name in (unet_to_ldm(state) if several else state)]
    for number, reader in enumerate(sd.readers, 1):
        prefix = f"lora_te{number}_" if several else "lora_te_"
        names += [prefix + name for name in reader.encoder.state_dict()]
    return {name.removesuffix(".weight").replace(".", "_") for name in names}


def _theirs_of_a_word(pipe: Any, path: Path, wanted: Tensor) -> str:
    pipe.load_textual_inversion(str(path), token="<new>")
    text = pipe.maybe_convert_prompt("a <new> boat", pipe.tokenizer)
    ids = pipe.tokenizer(text, padding="max_length", max_length=77, return_tensors="pt").input_ids
    return _far(pipe.text_encoder(ids).last_hidden_state, wanted)


def _read(networks: Networks) -> Tensor:
    reader = networks.readers[0]
    return reader.encoder(torch.tensor([reader.tokenizer("a <new> boat").ids])).last


def _rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _told(sd: Any) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    side, width = sd.unet.config.sides[0], sd.unet.config.cross_attention_dim
    sizes = torch.tensor([[64.0, 64, 0, 0, 64, 64]])
    added = {"text_embeds": _rand(1, 24, seed=3), "time_ids": sizes}
    return _rand(1, 4, side, side), _rand(1, 77, width, seed=1), added if sd.family.told else {}


def _asked(unet: Any, sd: Any) -> Tensor:
    x, context, added = _told(sd)
    return unet(x, 500.0, context, **added)


def _asked_theirs(unet: Any, sd: Any) -> Tensor:
    x, context, added = _told(sd)
    return unet(x, 500.0, context, **({"added_cond_kwargs": added} if added else {})).sample


def _far(a: Tensor, b: Tensor) -> str:
    return f"{(a - b).abs().max().item():.1e}"


# --- stopped and gone on with --------------------------------------------------------------------


@main.command("resume")
def resume_() -> None:
    """Whether a training that was stopped ends equal to the bit to one that was not."""
    print("| method | weights, optimizer, average | file |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        folder = write(Path(place) / "model", FAMILIES["SD 1.x"])
        sd = sdcore.load(folder, device="cpu", engine="plain")
        data = Path(place) / "data"
        data.mkdir()
        for i, words in enumerate(("a red house", "a blue boat", "a red boat")):
            shown = Description("snow", (Thing("boat", "red", "big"),), place="middle")
            draw(shown, np.random.default_rng(i), 64).save(data / f"{i}.png")
            (data / f"{i}.txt").write_text(words)
        methods: dict[str, dict[str, Any]] = {
            "lora": {"text": True, "dropout": 0.2, "ema": 0.9},
            "lora, DoRA": {"dora": True, "accumulate": 2},
            "full": {"method": "full", "text": True, "batch": 2},
            "dreambooth": {"method": "dreambooth", "caption": "a red boat",
                           "class_prompt": "a boat", "class_pictures": 2},
            "embedding": {"method": "embedding", "word": "<new>", "vectors": 2},
        }  # fmt: skip
        for name, options in methods.items():
            usual = {"steps": 6, "rank": 2, "grid": 1, "draw_steps": 1, "lr": 1e-2}
            plan = Plan(**{**usual, "prompts": ("a boat",), **options})
            whole, parts = (Path(place) / f"{name} {kind}" for kind in ("whole", "parts"))
            path = train(sd, data, plan, whole, name="new")
            try:
                train(sd, data, plan, parts, name="new", watcher=_Stops(3))
            except Stopped:
                again = train(sd, data, plan, parts, name="new")
            states = [load_file(next(p.glob("checkpoint-*"))) for p in (whole, parts)]
            print(f"| {name} | {_same(*states)} | {_same(load_file(path), load_file(again))} |")


class _Stops(Silent):
    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, step: TrainStep, total: int) -> None:
        if step.step == self.at:
            os.kill(os.getpid(), 2)


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> str:
    equal = a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    return "equal to the bit" if equal else "DIFFERENT"


main.add_command(step)

if __name__ == "__main__":
    main()
