"""What a ComfyUI picture says: prompts and sampler settings, read from the graph that drew it.

The PNG text `prompt` holds {node: {"class_type": ..., "inputs": {name: value or [node, output]}}}.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sdcore.errors import InputError
from sdcore.strict_json import parse

_SAMPLER = ("seed", "noise_seed", "steps", "cfg", "sampler_name", "scheduler", "denoise",
            "start_at_step", "end_at_step")  # fmt: skip
_FILES = ("ckpt_name", "unet_name", "vae_name", "lora_name", "strength_model", "strength_clip",
          "stop_at_clip_layer")  # fmt: skip
_DEPTH = 100  # nodes that name each other

Node = Mapping[str, Any]


def read(text: str) -> list[dict[str, Any]]:
    """For each sampler of the graph what it was asked for: seed, steps, cfg, sampler_name ...,
    "positive" and "negative" texts, "width", "height", and the files that it was drawn with.

    Raises InputError where there is no such graph, or no sampler in it.
    """
    try:
        graph = parse(text)
    except InputError as error:
        raise InputError(f"its ComfyUI graph cannot be read: {error}") from None
    nodes = {
        name: node
        for name, node in (graph.items() if isinstance(graph, dict) else ())
        if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
    }
    samplers = [_sampler(node, nodes) for node in nodes.values() if "positive" in node["inputs"]]
    found = [facts for facts in samplers if "steps" in facts]
    if not found:
        raise InputError("its ComfyUI graph has no sampler with prompts and steps of its own")
    return found


def _sampler(node: Node, nodes: Mapping[str, Node]) -> dict[str, Any]:
    inputs = node["inputs"]
    facts = {name: inputs[name] for name in _SAMPLER if _is_plain(inputs.get(name))}
    for name in ("positive", "negative"):
        texts = [value for above in _above(inputs.get(name), nodes)
                 for key, value in above["inputs"].items()
                 if key.startswith("text") and isinstance(value, str)]  # fmt: skip
        facts[name] = "\n".join(dict.fromkeys(texts))
    for above in _above(inputs.get("latent_image"), nodes):
        sizes = {k: above["inputs"].get(k) for k in ("width", "height")}
        facts |= {k: v for k, v in sizes.items() if _is_plain(v)}
    files: dict[str, list[Any]] = {}
    for above in (*_above(inputs.get("model"), nodes), *_above(inputs.get("positive"), nodes)):
        for name in _FILES:
            value = above["inputs"].get(name)
            if _is_plain(value) and value not in files.setdefault(name, []):
                files[name].append(value)
    return facts | {name: values[0] if len(values) == 1 else values
                    for name, values in files.items() if values}  # fmt: skip


def _above(link: Any, nodes: Mapping[str, Node]) -> Iterator[Node]:
    """The node that a link comes from, and all that it is made of, the nearest first."""
    waiting, seen = [link], set()
    while waiting and len(seen) < _DEPTH:
        link = waiting.pop(0)
        if not isinstance(link, list) or not link or str(link[0]) in seen:
            continue
        name = str(link[0])
        seen.add(name)
        if name in nodes:
            yield nodes[name]
            waiting += nodes[name]["inputs"].values()


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float)
