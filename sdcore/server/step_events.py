"""A kept step as a page reads it: its numbers, and its latents as float16.

Latents are small: at 512 x 512 a view is 32 KB, so that a page paints every step of a run at once,
by one linear map from a latent pixel to a colour, and asks for a picture only where it wants one.
"""

from __future__ import annotations

import base64
import math
from collections.abc import AsyncIterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sdcore.latent_colours import LatentColours
from sdcore.models import VAE
from sdcore.server.jobs import Job
from sdcore.server.sse import Sent
from sdcore.server.studies import VIEWS, Study, study_of
from sdcore.trajectory.geometry import rms

CELLS, SIDE = 8, 16  # of the picture that a map to colours is fitted to: latents a side


def step_data(study: Study, number: int, views: bool = True) -> dict[str, Any]:
    """What is told of a step.

    number: from 0, in its run; index: in its schedule. rms: root mean squares of a value of x, x0,
    eps, the branches' difference, and of what has changed in x0 since the step before. angle: in
    degrees, between eps here and there. x is sent as the network sees it, x / sqrt(1 + sigma^2);
    views: base64 of float16, little-endian, [C,h,w] each.
    """
    kept = study.steps[number]
    step, before = kept.step, study.steps[number - 1].step if number else None
    if before is not None and before.x.shape != step.x.shape:  # a second pass begins, larger
        before = None
    x0, eps = step.prediction.x0, step.prediction.eps
    sizes = {name: view for name in VIEWS if (view := kept.view(name)) is not None}
    if before is not None:
        sizes["change"] = x0 - before.prediction.x0
    data: dict[str, Any] = {
        "number": number,
        "index": step.index,
        "count": step.count,
        "sigma": step.sigma,
        "sigma_next": step.sigma_next,
        "nfe": step.nfe,
        "seconds": kept.seconds,
        "rms": {name: _number(rms(view)) for name, view in sizes.items()},
        "angle": None if before is None else _angle(eps, before.prediction.eps),
        "shape": list(step.x.shape[1:]),
    }
    for name in VIEWS:
        data[name] = None
    if views:
        seen = step.x / math.sqrt(1 + step.sigma**2)
        for name in VIEWS:
            view = seen if name == "x" else kept.view(name)
            data[name] = None if view is None else packed(view)
    return data


async def events(job: Job, after: int = 0, views: bool = True) -> AsyncIterator[Sent]:
    """The events of a run behind number `after`.

    "step" for each step that is kept, and the job's own: "running", "note" (line), "again", "done",
    "failed" (error), "cancelled". What has ended is told whole and then closed. views: whether the
    latents are sent, and not the numbers alone.
    """
    study = study_of(job)
    async for event in job.follow(after):
        if event.kind == "step":  # told once more when it is kept
            continue
        if event.kind == "kept":
            if event.data["number"] >= len(study.steps):  # it was drawn anew since
                continue
            yield Sent(step_data(study, event.data["number"], views), "step", event.id)
        else:
            yield Sent(event.data, event.kind, event.id)


def packed(latents: Tensor) -> str:
    """[1,C,h,w] -> base64 of float16."""
    whole = latents[0].to(torch.float16).contiguous().numpy()
    return base64.b64encode(whole.astype("<f2").tobytes()).decode("ascii")


def colours_of(vae: VAE) -> dict[str, Any]:
    """The linear map from latents to colours in 0 .. 1, fitted to what the VAE makes of a picture
    of soft colours: weights [3][C], bias [3]."""
    cells = torch.rand(1, 3, CELLS, CELLS, generator=torch.Generator().manual_seed(0)) * 2 - 1
    side = SIDE * vae.config.factor
    picture = F.interpolate(cells, (side, side), mode="bicubic").clamp(-1, 1)
    device = next(vae.parameters()).device
    with torch.inference_mode():
        latents = vae.encode(picture.to(device, vae.dtype)).mean.float().cpu()
    fitted = LatentColours.fit(latents, picture)
    return {"weights": (fitted.weights.T / 2).tolist(), "bias": (fitted.bias / 2 + 0.5).tolist()}


def _angle(one: Tensor, other: Tensor) -> float | None:
    """In degrees."""
    cosine = F.cosine_similarity(one.flatten(1).double(), other.flatten(1).double())
    return _number(torch.rad2deg(torch.acos(cosine.clamp(-1, 1))))


def _number(value: Tensor) -> float | None:
    number = float(value.mean())
    return number if math.isfinite(number) else None
