"""How a network is run: plainly, layer by layer as it is written, or fast.

`sdcore.models` holds the networks that a reader reads. This room holds the same computations in
another form, chosen by what the processor and this torch can do; whatever is special about a
network (hooks, adapters beside layers, a mode of memory, gradients) is left to the plain one. Both
agree to rounding. The seam is one function, `ready`.

    plain      the modules themselves
    auto       the fast form where there is one, else the plain one
    compile    the modules by torch.compile: minutes of waiting, and a compiler on the machine

What may be traded for time beside, and never is unasked, stands in `lossy`.
"""

from __future__ import annotations

from sdcore.engine.calls import FastUNetCall
from sdcore.engine.choose import ENGINES, Choice, check_engine, choose
from sdcore.engine.lossy import Lossy, check_fits
from sdcore.engine.ready import ready, ready_decoder

__all__ = [
    "ENGINES",
    "Choice",
    "FastUNetCall",
    "Lossy",
    "check_engine",
    "check_fits",
    "choose",
    "ready",
    "ready_decoder",
]
