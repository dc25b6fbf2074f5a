"""A scheduler_config.json of a network that was trained along the straight path.

diffusers (0.42.1) writes it in two ways: FlowMatchEuler's and FlowMatchHeun's own classes, and
use_flow_sigmas in those of DPM++, UniPC, DEIS and SA-Solver. What is asked of the path is here;
what is asked of the solver stays in the file's other fields.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from sdcore.errors import InputError
from sdcore.process import FLOW
from sdcore.schedulers.conventions import Config
from sdcore.schedulers.flow_schedule import FlowSchedule, Shift
from sdcore.schedulers.spacing import Spacing
from sdcore.schedulers.spacing.flow import rule_of

# The classes of the path alone, and whose solver they run.
CLASSES = {
    "FlowMatchEulerDiscreteScheduler": "EulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler": "HeunDiscreteScheduler",
}
_OWN = ("prediction_type", "use_flow_sigmas", "final_sigmas_type", "timestep_spacing")
_OWN_SPACING = {**dict.fromkeys(CLASSES, "linspace"), "UniPCMultistepScheduler": "trailing"}
_CURVES = ("karras", "exponential", "beta")


@dataclass(frozen=True)
class Flow:
    """What a config says of the path: its schedule, its own spacing, and the rest of the file."""

    schedule: FlowSchedule
    own_spacing: str
    rest: Config  # for the solver, under the class that it follows
    eta: float | None = None  # 1: all noise is drawn anew each step

    def spacing(self, name: str | None) -> Spacing:
        """The spacing of a name, None for its own. Raises InputError for one that it has not."""
        name = self.own_spacing if name is None else name
        return Spacing(name, rule_of(name), start="unit_variance")


def flow_of(config: Config) -> Flow | None:
    """None where the network was trained on a table of betas.

    Raises InputError for a field that is not understood, or is not what it can be.
    """
    name = config.get("_class_name")
    own = isinstance(name, str) and name in CLASSES
    asks = own or config.get("prediction_type") == FLOW
    if not asks and config.get("use_flow_sigmas") is not True:
        return None
    says = config.get("prediction_type", FLOW if own else "epsilon")
    if says != FLOW:
        raise InputError(
            "the scheduler config asks for use_flow_sigmas = True and prediction_type = "
            f"{says!r:.80}: {FLOW} is what a network says along the straight path"
        )
    field = _reader(config)
    if field("invert_sigmas", bool, False):
        raise InputError(
            "the scheduler config asks for invert_sigmas: a network that is told 1 - s, as Mochi's"
        )
    if (ends := config.get("final_sigmas_type", "zero")) != "zero":
        raise InputError(f"the scheduler config asks for final_sigmas_type = {ends!r:.80}: a flow "
                         "ends at 0")  # fmt: skip
    redrawn = own and field("stochastic_sampling", bool, False)
    rest = {key: value for key, value in config.items() if key not in _OWN}
    if own:
        rest["_class_name"] = "TCDScheduler" if redrawn else CLASSES[str(name)]
        rest = {key: value for key, value in rest.items() if key == "_class_name"}
    curves = [curve for curve in _CURVES if field(f"use_{curve}_sigmas", bool, False)]
    if len(curves) > 1:
        raise InputError(f"the scheduler config asks for {' and '.join(curves)} sigmas at once")
    length = field("num_train_timesteps", int, 1000)
    if not 1 < length <= 100_000:
        raise InputError(f"the scheduler config has num_train_timesteps = {length}: 2 to 100000")
    return Flow(
        schedule=FlowSchedule(_shift(field), length),
        own_spacing=curves[0] if curves else _OWN_SPACING.get(str(name), "leading"),
        rest=rest,
        eta=1.0 if redrawn else None,
    )


def prediction_type_of(config: Config) -> str:
    """What a network with this config says, by the published name; "epsilon" where it is untold."""
    return config.get("prediction_type", "epsilon") if flow_of(config) is None else FLOW


def _shift(field: Callable[..., Any]) -> Shift:
    """The shift, of a number or of mu. Raises InputError where mu is to come from a size."""
    terminal = field("shift_terminal", float, None)
    if not field("use_dynamic_shifting", bool, False):
        name = "shift" if field("shift", float, None) is not None else "flow_shift"
        return Shift(field(name, float, 1.0), terminal)
    mu = field("mu", float, None)
    if mu is None:
        raise InputError(
            "the scheduler config shifts by the picture's size (use_dynamic_shifting): give it mu, "
            "or a spacing that says it: simple:mu=1.15"
        )
    kind: Literal["exponential", "linear"] = field("time_shift_type", str, "exponential")
    if kind not in ("exponential", "linear"):
        raise InputError(
            f"the scheduler config has time_shift_type = {kind!r:.80}: exponential or linear"
        )
    return Shift(math.exp(mu) if kind == "exponential" else mu, terminal)


def _reader(config: Config) -> Callable[..., Any]:
    """A function (key, type, default) that reads a field, and refuses what is not of its type."""

    def field(key: str, kind: type, default: Any) -> Any:
        value = config.get(key)
        if value is None:
            return default
        kinds = (int, float) if kind is float else (kind,)
        if type(value) not in kinds or (kind is float and not math.isfinite(value)):
            raise InputError(f"the scheduler config has {key} = {value!r:.80}: it cannot be that")
        return value

    return field
