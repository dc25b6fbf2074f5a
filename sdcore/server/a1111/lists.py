"""What A1111's API tells of itself: lists of what is here, and its progress. No path is in them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from sdcore.a1111 import SAMPLERS, UPSCALERS
from sdcore.schedulers import TABLE
from sdcore.server.a1111.preferences import Preferences
from sdcore.server.a1111.samplers import LABELS
from sdcore.server.metrics import memory_now
from sdcore.server.worker import Worker


def settings(preferences: Preferences) -> dict[str, Any]:
    """What GET options answers."""
    return {
        "samples_format": "png",
        "sd_model_checkpoint": title(preferences.model),
        "sd_checkpoint_hash": "",
        "sd_vae": "Automatic",
        "CLIP_stop_at_last_layers": preferences.clip_skip,
        "randn_source": "CPU",
    }


def title(name: str) -> str:
    """A model's, which clients send back as it is."""
    return name


def _models(worker: Worker) -> list[dict[str, Any]]:
    return [
        {"title": title(name), "model_name": name, "hash": None, "sha256": None,
         "filename": name, "config": None}
        for name in worker.models.places
    ]  # fmt: skip


def _samplers(worker: Worker) -> list[dict[str, Any]]:
    """Theirs by their labels, ours that they lack by our names."""
    theirs = [{"name": label, "aliases": [name], "options": {}} for name, label in SAMPLERS.items()]
    ours = [each.name for each in TABLE if each.name not in SAMPLERS]
    return [*theirs, *({"name": name, "aliases": [], "options": {}} for name in ours)]


def _schedulers(worker: Worker) -> list[dict[str, Any]]:
    every = {"automatic": "Automatic", **LABELS}
    return [
        {"name": name, "label": label, "aliases": None, "default_rho": -1.0,
         "need_inner_model": False}
        for name, label in every.items()
    ]  # fmt: skip


def _loras(worker: Worker) -> list[dict[str, Any]]:
    return [{"name": n, "alias": n, "path": n, "metadata": {}} for n in worker.models.loras]


def _embeddings(worker: Worker) -> dict[str, Any]:
    known = {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None}
    words = (worker.models.word_of(name) for name in worker.models.embeddings)
    return {"loaded": dict.fromkeys(words, known), "skipped": {}}


def _upscalers(worker: Worker) -> list[dict[str, Any]]:
    nothing = {"model_name": None, "model_path": None, "model_url": None, "scale": 4}
    return [{"name": name, **nothing} for name in ("None", "Lanczos")]


def _latent_modes(worker: Worker) -> list[dict[str, Any]]:
    return [{"name": label} for label in UPSCALERS.values() if label.startswith("Latent")]


def _memory(worker: Worker) -> dict[str, Any]:
    now = memory_now()
    page = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    total = page * os.sysconf("SC_PHYS_PAGES") if page else 0
    used = now.get("resident", 0)
    ram = {"free": max(0, total - used), "used": used, "total": total}
    if "device" not in now:
        return {"ram": ram, "cuda": {"error": "unavailable"}}
    import torch

    free, whole = torch.cuda.mem_get_info()
    system = {"free": free, "used": whole - free, "total": whole}
    allocated = {"current": now["device"], "peak": now["device_peak"]}
    return {"ram": ram, "cuda": {"system": system, "allocated": allocated}}


LISTS: Mapping[str, Callable[[Worker], Any]] = {
    "sd-models": _models,
    "sd-vae": lambda worker: [],
    "samplers": _samplers,
    "schedulers": _schedulers,
    "loras": _loras,
    "embeddings": _embeddings,
    "upscalers": _upscalers,
    "latent-upscale-modes": _latent_modes,
    "hypernetworks": lambda worker: [],
    "face-restorers": lambda worker: [],
    "prompt-styles": lambda worker: [],
    "extensions": lambda worker: [],
    "memory": _memory,
    "scripts": lambda worker: {"txt2img": [], "img2img": []},
    "script-info": lambda worker: [],
    "cmd-flags": lambda worker: {},
}


def progress(
    share: float = 0.0,
    left: float = 0.0,
    count: int = 0,
    number: int = 0,
    step: int = 0,
    steps: int = 0,
    stopped: bool = False,
    picture: str | None = None,
) -> dict[str, Any]:
    """What GET progress answers; without arguments: nothing is drawn.

    share: of all, 0 to 1. left: seconds. count, number: jobs, and which of them is drawn.
    """
    state = {
        "skipped": False,
        "interrupted": stopped,
        "stopping_generation": stopped,
        "job": "" if not count else f"picture {min(number + 1, count)} of {count}",
        "job_count": count,
        "job_timestamp": "0",
        "job_no": number,
        "sampling_step": step,
        "sampling_steps": steps,
    }
    return {
        "progress": share,
        "eta_relative": left,
        "state": state,
        "current_image": picture,
        "textinfo": None,
    }
