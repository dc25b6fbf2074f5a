"""A LoRA's step at SD 1.5's size beside diffusers': `python -m scripts.train_figures step`."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import torch

import sdcore
from scripts.families import find, write
from scripts.measured import state
from scripts.train.world import Description, Thing, draw
from sdcore.training.folder import Example
from sdcore.training.latents import encoded
from sdcore.training.plan import Plan, with_defaults
from sdcore.training.process import readied
from sdcore.training.ranks import Ranks
from sdcore.training.session import Session
from sdcore.training.watcher import Silent
from sdcore.writing import write_whole


@click.command()
@click.option("--side", default=512, show_default=True, help="Of the picture, in pixels.")
@click.option("--steps", default=3, show_default=True, help="The first warms up.")
@click.option("--who", type=click.Choice(["sdcore", "diffusers"]), help="One alone, in here.")
@click.option(
    "--work", type=click.Path(path_type=Path), default=Path("runs/train-step"), show_default=True,
    help="Folder for the model (2 GB) and what has been measured.",
)  # fmt: skip
def step(side: int, steps: int, who: str | None, work: Path) -> None:
    """Memory and seconds of a LoRA's step at SD 1.5's size, beside diffusers' published recipe.

    Random weights in one float16 folder, from which both load in float32; a process each. Stopped,
    the same command goes on.
    """
    model = work / "model"
    if not (model / "model_index.json").is_file():  # which is written last
        write(model, find("sd15"), torch.float16)
    if who is not None:
        steps_of = {"sdcore": _our_steps, "diffusers": _their_steps}[who]
        seconds, encoding = steps_of(model, side, steps)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(json.dumps([float(np.median(x[1:])) for x in (seconds, encoding)] + [peak]))
        return
    rows = {}
    for name in ("diffusers", "sdcore"):
        kept = work / f"{name}-{side}-{steps}-{state()}.json"
        if not kept.is_file():
            command = [sys.executable, "-m", "scripts.train_figures", "step", "--who", name]
            command += ["--side", str(side), "--steps", str(steps), "--work", str(work)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            write_whole(kept, done.stdout.splitlines()[-1].encode())
        seconds, encoding, peak = rows[name] = json.loads(kept.read_text())
        print(f"{name}: {seconds:.1f} s of processor time a step ({encoding:.1f} s of it for "
              f"encoding), {peak:.2f} GB at most", flush=True)  # fmt: skip
    ours, theirs = rows["sdcore"], rows["diffusers"]
    print(f"sdcore / diffusers: {ours[0] / theirs[0]:.2f} of the seconds "
          f"({ours[0] / (theirs[0] - theirs[1]):.2f} of those without encoding), "
          f"{ours[2] / theirs[2]:.2f} of the memory")  # fmt: skip


def _their_steps(model: Path, side: int, steps: int) -> tuple[list[float], list[float]]:
    """As `train_text_to_image_lora.py` of diffusers, which encodes picture and caption in each
    step. Processor time of every step: what else the machine does is not counted; and encoding's.
    """
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from peft import LoraConfig
    from transformers import CLIPTextModel

    torch.manual_seed(0)
    how = {"torch_dtype": torch.float32}
    unet = UNet2DConditionModel.from_pretrained(model / "unet", **how)
    vae = AutoencoderKL.from_pretrained(model / "vae", **how)
    text = CLIPTextModel.from_pretrained(model / "text_encoder", **how)
    for module in (unet, vae, text):
        module.requires_grad_(False)
    targets = ["to_k", "to_q", "to_v", "to_out.0"]
    unet.add_adapter(LoraConfig(r=4, lora_alpha=4, init_lora_weights="gaussian",
                                target_modules=targets))  # fmt: skip
    trained = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=1e-2)
    noise = DDPMScheduler.from_pretrained(model / "scheduler")
    pixels, ids = torch.rand(1, 3, side, side) * 2 - 1, torch.zeros(1, 77, dtype=torch.long)
    seconds, encoding = [], []
    for _ in range(steps):
        begin = time.process_time()
        latents = vae.encode(pixels).latent_dist.sample() * vae.config.scaling_factor
        context = text(ids, return_dict=False)[0]
        encoding.append(time.process_time() - begin)
        eps = torch.randn_like(latents)
        t = torch.randint(0, 1000, (1,))
        said = unet(noise.add_noise(latents, eps, t), t, context, return_dict=False)[0]
        torch.nn.functional.mse_loss(said.float(), eps.float()).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.process_time() - begin)
    return seconds, encoding


def _our_steps(model: Path, side: int, steps: int) -> tuple[list[float], list[float]]:
    """As `sdcore train` does it: everything is encoded before the first step."""
    sd = sdcore.load(model, device="cpu", dtype="float32", memory="fast", engine="plain")
    plan = with_defaults(
        Plan(rank=4, targets="attention", min_snr=0.0, caption_dropout=0.0, steps=steps,
             schedule="constant", warmup=0.0, resolution=side),
        "epsilon", side,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        shown = Description("sunset", (Thing("boat", "blue", "big"),), place="middle")
        path = Path(place) / "boat.png"
        draw(shown, np.random.default_rng(5), side).save(path)
        items, _ = encoded([Example(path, ("a big blue boat at sunset",))], sd, plan)
        session = Session(readied(sd, plan), plan, Path(place), "boat", items, [],
                          tell=lambda line: None, watcher=Silent(), ranks=Ranks())  # fmt: skip
        seconds, begin = [], time.process_time()
        with session.aside():
            for _ in session.trainer.steps():
                seconds.append(time.process_time() - begin)
                begin = time.process_time()
    return seconds, [0.0] * steps
