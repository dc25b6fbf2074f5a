"""What a UNet is told beside x and t, family by family.

SD 1.x and 2.x are told what their text encoder ends with. SDXL (Podell et al. 2023, arXiv
2307.01952) is told what comes out before the last layer of each of its encoders, side by side, and
in a vector of its own the last encoder's pooled embedding and a few numbers about the picture: its
size before it was scaled for training, where it was cut, the size aimed at (section 2.2); the
refiner, in place of the last, how beautiful it was found. A UNet with distilled guidance is told
the guidance scale (Meng et al. 2023, arXiv 2210.03142).

All of it goes through one door: branch -> argument of the UNet -> [B,...].
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdcore.errors import InputError
from sdcore.family import Family
from sdcore.guidance import Source, part_names
from sdcore.models.layers import placement
from sdcore.models.unet import sinusoid
from sdcore.models.unet_inputs import SCORES, SIZES
from sdcore.networks import Reader
from sdcore.prompts import at_step, chunked, encode, prompt_parts, report, switches
from sdcore.settings import Settings
from sdcore.stages import Stage, repeated, stack

Rows = dict[str, Tensor]  # argument of the UNet -> [1,...]


class Blend(NamedTuple):
    """Words on the way from one text to another."""

    text: str
    other: str
    share: float  # 0 is the text, 1 the other


Said = str | Blend | None  # the words of a branch; None: a negative prompt that was not given


@dataclass(frozen=True)
class Conditioner:
    """Settings to conditions, for the UNet of one family.

    readers: one, or two (SDXL).
    family: what it is told beside the text.
    zero_empty: an absent negative prompt is zeros, as in SDXL's training, not the encoded "".
    """

    readers: tuple[Reader, ...]
    family: Family
    zero_empty: bool = False

    def stages(
        self,
        settings: Sequence[Settings],
        branches: Iterable[str],
        sigmas: Sequence[float],
        sources: Mapping[str, Source] = MappingProxyType({}),
    ) -> tuple[Stage, ...]:
        """What the UNet is told, from each step on in which a prompt of these branches changes.

        branches: "cond", "uncond" and those of `sources`; sigmas: of the whole schedule, steps + 1
        of them. Raises InputError for another branch.
        """
        said, steps, first = _said(settings, branches, sources), len(sigmas) - 1, settings[0]
        weighted = first.grammar != "plain"
        texts = _texts(said.values()) if weighted else []
        begins = [0, *sorted({n for text in texts for n in switches(text, steps)})]
        read: dict[Said, Rows] = {}
        stages: dict[tuple[tuple[Said, ...], ...], Stage] = {}  # by their words
        begun = []
        for begin in begins:
            now = {
                name: [_at_step(t, begin, steps) if t and weighted else t for t in row]
                for name, row in said.items()
            }
            words = tuple(map(tuple, now.values()))
            if words not in stages:
                # One call for each text, so that none depends on its company.
                for text in {text for row in now.values() for text in row} - read.keys():
                    read[text] = self.read(text, first.grammar, first.clip_skip)
                told = {
                    name: [
                        read[text] | self.numbers(each, negative=name == "uncond")
                        for text, each in zip(row, settings, strict=True)
                    ]
                    for name, row in now.items()
                }
                stages[words] = stack(math.inf, told)
            begun.append(replace(stages[words], sigma=sigmas[begin] if begin else math.inf))
        return tuple(begun)

    def warnings(self, settings: Sequence[Settings], branches: Iterable[str]) -> list[str]:
        """One line for whatever of the texts is read otherwise than a user might think."""
        most = max(len(prompt_parts(each.prompt, each.grammar)) for each in settings)
        known = set(branches) & {*part_names(most), "uncond"}
        texts = _texts(_said(settings, known).values())
        tokenizer, first = self.readers[0].tokenizer, settings[0]
        return [
            line for text in texts for line in report(text, tokenizer, first.grammar, first.steps)
        ]

    def read(self, text: Said, grammar: str = "plain", clip_skip: int = 1) -> Rows:
        """What the UNet is told of a text: `context` [1,L,D], in SDXL also `text_embeds` [1,P].

        None is the negative prompt that was not given. The rest: as `prepare` takes it.
        """
        if isinstance(text, Blend):
            first, other = (self.read(each, grammar, clip_skip) for each in text[:2])
            return _blended(first, other, text.share)
        if text is None and self.zero_empty:
            empty = self.read("", grammar, clip_skip)
            return {key: torch.zeros_like(value) for key, value in empty.items()}
        encodings = [
            encode(
                chunked("" if text is None else text, reader.tokenizer, grammar),
                reader.encoder,
                clip_skip,
                before_last=bool(self.family.told),
            )
            for reader in self.readers
        ]
        if not self.family.told:
            return {"context": encodings[0][0]}
        contexts = torch.cat([context for context, _ in encodings], dim=-1)
        return {"context": contexts, "text_embeds": encodings[-1][1]}

    def numbers(self, settings: Any, negative: bool) -> Rows:
        """What it is told beside the text, one row: `time_ids` [1,6 or 5], `timestep_cond`.

        settings: or what else has their sizes and scores, such as a picture of a training.
        """
        device, _ = placement(self.readers[0].encoder)
        inputs = {}
        if self.family.told:
            names = (n for n in self.family.told if n != SCORES[not negative])
            values = [getattr(settings, name) for name in names]
            pairs = [reversed(v) if isinstance(v, tuple) else (v,) for v in values]
            ids = [number for pair in pairs for number in pair]  # of a size height, then width
            inputs["time_ids"] = torch.tensor([ids], dtype=torch.float32, device=device)
        if self.family.scale_width is not None:
            row = scale_embedding(settings.cfg, self.family.scale_width)
            inputs["timestep_cond"] = row.to(device)
        return inputs


def read_towards(text: str) -> tuple[str, float]:
    """The other prompt and its share. Raises InputError for another text.

    >>> read_towards("a blue house:0.5")
    ('a blue house', 0.5)
    """
    other, _, share = text.rpartition(":")
    try:
        if not 0 <= float(share) <= 1:
            raise ValueError
        return other, float(share)
    except ValueError:
        raise InputError(
            f"towards is another prompt and a share of 0 to 1, like 'a blue house:0.5', not "
            f"{text!r:.80}"
        ) from None


def _texts(rows: Iterable[Sequence[Said]]) -> list[str]:
    """All texts in them, each once."""
    ends = (said[:2] if isinstance(said, Blend) else (said,) for row in rows for said in row)
    return list(dict.fromkeys(text for texts in ends for text in texts if text))


def _at_step(said: Said, step: int, steps: int) -> Said:
    if isinstance(said, Blend):
        text, other = (at_step(each, step, steps) for each in said[:2])
        return Blend(text, other, said.share)
    return said and at_step(said, step, steps)


def _blended(first: Rows, second: Rows, share: float) -> Rows:
    """On the line between both. Contexts of unequal length are repeated: see `stages.Rows`."""
    length = math.lcm(*(rows["context"].shape[1] for rows in (first, second)))
    ends = [{key: repeated(key, row, length) for key, row in rows.items()}
            for rows in (first, second)]  # fmt: skip
    return {key: torch.lerp(ends[0][key], ends[1][key], share) for key in first}


def _words(settings: Settings) -> list[Said]:
    """The parts of a prompt. Raises InputError for several that are to become another."""
    parts = [text for text, _ in prompt_parts(settings.prompt, settings.grammar)]
    if settings.towards is None:
        return [*parts]
    other, share = read_towards(settings.towards)
    if len(parts) > 1 or len(prompt_parts(other, settings.grammar)) > 1:
        raise InputError("a prompt of several, with AND, is not blended with another")
    return [Blend(parts[0], other, share)]


def _said(
    settings: Sequence[Settings],
    branches: Iterable[str],
    sources: Mapping[str, Source] = MappingProxyType({}),
) -> dict[str, list[Said]]:
    """The words of each branch, one for each picture."""
    parts = [_words(each) for each in settings]
    words: dict[str, list[Said]] = {
        name: [texts[n] if n < len(texts) else texts[0] for texts in parts]
        for n, name in enumerate(part_names(max(map(len, parts))))
    }
    words["uncond"] = [s.negative for s in settings]
    for name, source in sources.items():
        words[name] = words[source.like] if source.text is None else [source.text] * len(settings)
    for name in branches:
        if name not in words:
            raise InputError(
                f"the guidance asks for a branch {name!r} and does not say what it is told: give "
                f"it an attribute sources = {{{name!r}: Source(...)}}"
            )
    return {name: words[name] for name in sorted(branches)}


def with_numbers(settings: Settings, families: Sequence[Family]) -> Settings:
    """The settings with what was not given filled in: the picture's own size, the usual scores.

    Raises InputError for what none of these UNets is told, and for numbers out of range.
    """
    size = (settings.width, settings.height)
    usual: dict[str, Any] = dict(
        zip((*SIZES, *SCORES), (size, (0, 0), size, 6.0, 2.5), strict=True)
    )
    told = {name for family in families for name in family.told}
    given: dict[str, Any] = {name: getattr(settings, name) for name in usual}
    for name, value in given.items():
        if value is None:
            continue
        if name not in told:
            raise InputError(f"{name} is nothing that this model is told: leave it out")
        numbers = value if isinstance(value, tuple) else (value,)
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise InputError(f"{name} must be at least 0, not {value}")
    filled = {name: usual[name] if given[name] is None else given[name] for name in sorted(told)}
    return replace(settings, **filled)


def scale_embedding(scale: float, dim: int) -> Tensor:
    """The guidance scale as a UNet is told it, [1, dim] (Luo et al. 2023, arXiv 2310.04378).

    A sinusoid of 1000 * (scale - 1), since their w counts from 0; its slowest wave is 1/10000.
    """
    w = torch.tensor([1000 * (scale - 1)])
    return sinusoid(w, dim, flip_sin_to_cos=False, freq_shift=1)
