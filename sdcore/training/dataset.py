"""The pictures of a training: read, encoded, counted and told of before anything is learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sdcore.errors import InputError, listed
from sdcore.networks import Networks
from sdcore.training.folder import Example, Skipped, read_folder
from sdcore.training.home import CLASS, CLASS_CACHE
from sdcore.training.latents import CACHE, Item, encoded
from sdcore.training.plan import Plan
from sdcore.training.prior import class_pictures
from sdcore.training.ranks import Ranks
from sdcore.training.watcher import Tell, Watcher
from sdcore.training.word import templates, with_word


def examples_of(folder: str | Path, plan: Plan, tell: Tell) -> tuple[list[Example], list[Skipped]]:
    """The pictures of the folder, and what is passed over; their captions hold the new word."""
    if plan.word is None:
        examples, skipped = read_folder(folder, plan.caption)
    else:
        usual = "\0"  # no caption is one
        examples, skipped = read_folder(folder, plan.caption or usual)
        said = templates(plan.word)
        examples = [replace(e, captions=said) if e.captions == (usual,) else e for e in examples]
        examples, added = with_word(examples, plan.word)
        if added:
            tell(f"{plan.word} was put before {added} captions that lacked it")
    if not examples:
        _tell_skipped(skipped, tell)
        raise _nothing(folder, skipped)
    return examples, skipped


def _tell_skipped(skipped: Sequence[Skipped], tell: Tell) -> None:
    for each in skipped:
        tell(f"{each.path} is passed over: {each.reason}")


def _nothing(folder: str | Path, skipped: Sequence[Skipped]) -> InputError:
    reasons = listed("passed over", [f"{s.path.name} ({s.reason})" for s in skipped], most=2)
    return InputError(f"{folder} holds no picture to train on; {reasons or 'it holds no file'}")


def items_of(
    networks: Networks, examples: list[Example], skipped: list[Skipped], plan: Plan, place: Path,
    tell: Tell, watcher: Watcher, ranks: Ranks,
) -> tuple[list[Item], list[Item]]:  # fmt: skip
    """The pictures, and those of the class; counted and told before anything is learned."""

    def encode(examples: list[Example], cache: str, what: str) -> tuple[list[Item], list[Skipped]]:
        return encoded(
            examples, networks, plan, place / cache, lambda things: watcher.bar(what, things)
        )

    prior: list[Item] = []
    for first in (True, False):  # the first process writes the caches, the others read them
        with ranks.together():
            if ranks.first == first:
                items, more = encode(examples, CACHE, "encoding")
                if plan.has_prior:
                    bar = lambda things: watcher.bar("drawing the class", things)  # noqa: E731
                    classes, unread = class_pictures(networks, plan, place / CLASS, bar)
                    prior, unusable = encode(classes, CLASS_CACHE, "encoding the class")
                    more = [*more, *unread, *unusable]
    skipped = [*skipped, *more]
    _tell_skipped(skipped, tell)
    for used, given in ((items, examples), *([(prior, classes)] if plan.has_prior else ())):
        if not used:
            raise _nothing(given[0].path.parent, skipped)
    _tell_counts(networks, items, prior, len(skipped), plan, tell)
    return items, prior


def _tell_counts(
    networks: Networks, items: list[Item], prior: list[Item], skipped: int, plan: Plan, tell: Tell
) -> None:
    looks = sum(item.example.repeats for item in items)
    sizes: dict[str, int] = {}
    for item in items:
        key = f"{item.size[0]}x{item.size[1]}"
        sizes[key] = sizes.get(key, 0) + 1
    captions = {text for item in items for text in item.example.captions}
    tell(
        f"{len(items)} pictures, {looks} looks an epoch, {len(captions)} captions, {skipped} "
        f"passed over; sizes: {', '.join(f'{k} ({n})' for k, n in sorted(sizes.items()))}"
    )
    if prior:
        tell(f"{len(prior)} pictures of the class, {plan.class_prompt!r}")
    if small := sum(item.enlarged for item in items):
        tell(f"{small} of them are smaller than what they are trained at, and were enlarged")
    tokenizer = networks.readers[0].tokenizer
    if cut := [text for text in captions if tokenizer(text).cut]:
        tell(f"{len(cut)} captions are longer than {tokenizer.length - 2} tokens, and are cut")
