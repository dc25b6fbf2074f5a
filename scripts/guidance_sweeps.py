"""What `scripts.guidances` tries: every guidance with four numbers, from weak to strong."""

from __future__ import annotations

from dataclasses import dataclass, replace

from scripts.train.world import COLOURS, Description, Thing, canonical_caption
from sdcore.guidance import Composed, Guidance


@dataclass(frozen=True)
class Sweep:
    """A guidance and the numbers that it is tried with.

    written: its written form, "{}" for the number s.
    negative: whether there is a negative prompt, the things in other colours.
    """

    name: str
    written: str
    numbers: tuple[float, ...]
    negative: bool = False

    def guidance(self, number: float, asked: Description) -> str | Guidance:
        if self.name == "composed":
            return composed(asked, number)
        return self.form(number)

    def form(self, number: float) -> str:
        return self.written.replace("{2s-1}", f"{2 * number - 1:g}").replace("{}", f"{number:g}")


SCALES = (2, 4, 7.5, 12)
STRENGTHS = (1, 2, 4, 8)
SWEEPS = (
    Sweep("cfg", "cfg:scale={}", SCALES),
    Sweep("rescale", "cfg:scale={}+rescale:share=0.7", SCALES),
    Sweep("interval", "cfg:scale={}+interval:low=0.28,high=2.9", SCALES),
    Sweep("varying", "varying:scales=[1,{2s-1}],sigmas=[8.4,0.04]", SCALES),
    Sweep("cfgpp", "cfgpp:share={}", (0.2, 0.4, 0.7, 1)),
    Sweep("apg", "apg:scale={}", SCALES),
    Sweep("zero_star", "zero_star:scale={}", SCALES),
    Sweep("threshold", "cfg:scale={}+threshold:least=3", SCALES),
    Sweep("cfg, negative", "cfg:scale={}", SCALES, negative=True),
    Sweep("perp_neg", "perp_neg:scale={}", SCALES, negative=True),
    Sweep("auto", "auto:scale={}", (1.5, 2, 3, 4)),
    Sweep("pag", "pag:strength={}", STRENGTHS),
    Sweep("seg", "seg:strength={}", STRENGTHS),
    Sweep("skip", "skip:strength={}", STRENGTHS),
    Sweep("composed", "composed:scale={},prompts=[its things],weights=[0.5,0.5]", SCALES),
)
OFF = Sweep("off", "cfg:scale={}", (1,))
PLAN = (  # the scale varies slowest: whenever it is stopped, all have been tried about as often
    (OFF, 1.0),
    *((sweep, sweep.numbers[i]) for i in (3, 1, 2, 0) for sweep in SWEEPS),  # the strongest first
)


def composed(asked: Description, scale: float) -> Composed:
    """The whole prompt at half the weight, and each of its things by itself for the rest."""
    alone = [
        canonical_caption(Description(asked.scene, (thing,), place="middle"), placed=False)
        for thing in asked.things
    ]
    return Composed(scale, tuple(alone), (0.5, *[0.5 / len(alone)] * len(alone)))


def recoloured(asked: Description) -> str:
    """The same with each thing in the colour that follows in the list: what must not come."""
    things = tuple(
        Thing(t.object, COLOURS[(COLOURS.index(t.colour) + 1) % len(COLOURS)], t.size)
        for t in asked.things
    )
    return canonical_caption(replace(asked, things=things))
