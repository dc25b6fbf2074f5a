"""Text to image, step by step, without the pipeline.

    python scripts/sample.py "a red house at sunset" [SEED] [MODEL]

What `sdcore sample` does, laid bare: load three networks, encode, loop, decode.
"""

import sys

import torch

from sdcore.checkpoints import load_component, open_model
from sdcore.denoiser import Denoiser
from sdcore.guidance import CFG
from sdcore.images import to_pictures
from sdcore.noise import SeededNoise
from sdcore.process import process_of
from sdcore.prompts import load_tokenizer
from sdcore.sampling import sample
from sdcore.schedulers import resolve

prompt = sys.argv[1] if len(sys.argv) > 1 else "a red house at sunset"
seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
model = sys.argv[3] if len(sys.argv) > 3 else "picturebook"

# 1. Three networks and a tokenizer, from a folder or a single file.
checkpoint = open_model(model)
parts = {name: load_component(part) for name, part in checkpoint.components.items()}
text_encoder, unet, vae = parts["text_encoder"], parts["unet"], parts["vae"]
tokenizer = load_tokenizer(*checkpoint.vocabulary())

with torch.inference_mode():
    # 2. Words to numbers, [1, 77, width]: the prompt, and the empty one to lead away from.
    texts = {"cond": prompt, "uncond": ""}
    conditions = {
        name: {"context": text_encoder(torch.tensor([tokenizer(text).ids])).last}
        for name, text in texts.items()
    }

    # 3. Which noise levels to visit, and how to step from one to the next.
    scheduler = resolve("dpmpp_2m", "karras", config=checkpoint.scheduler or None)
    plan = scheduler.plan(20)

    # 4. (x, sigma) -> what the picture behind the noise may be.
    process = process_of(scheduler.prediction_type, plan)
    denoise = Denoiser(unet, process, conditions, CFG(7.5))

    # 5. From noise to latents, one step at a time.
    side = unet.config.sample_size
    noise = SeededNoise((seed,), (4, side, side))
    x = noise.start() * plan.start_scale
    for step in sample(denoise, x, plan.sigmas, scheduler.solver, noise):
        print(f"step {step.index + 1:2}  sigma {step.sigma:7.3f} -> {step.sigma_next:.3f}")

    # 6. Latents to a picture.
    picture = to_pictures(vae.decode(step.x_next * plan.end_scale))[0]

picture.save("sample.png")
print("sample.png")
