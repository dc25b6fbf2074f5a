"""Write docs/orders-flow.md: `python -m scripts.flow_orders` (make docs).

How fast every solver converges along the straight path of flow matching, in the world of a mixture,
whose flow is known exactly: no weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import torch
from tqdm import tqdm

from scripts.write_docs import FEW, by_variable, table
from sdcore.errors import InputError
from sdcore.lab import Mixture, measure
from sdcore.lab.order import Convergence
from sdcore.lab.worlds import denoiser
from sdcore.noise import SeededNoise
from sdcore.process import RectifiedFlow
from sdcore.sampling import sample
from sdcore.schedulers import TABLE, Entry, Scheduler, resolve
from sdcore.schedulers.flow_schedule import to_sigma
from sdcore.writing import write_whole

PAGE = Path(__file__).parents[1] / "docs" / "orders-flow.md"
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
HIGH, LOW = 0.99, 0.05  # the ends of the window, in s
COUNTS = (10, 20, 40, 160, 320)
WHOLE = (4, 10, 20)  # steps of whole runs
SHIFTS = (1.0, 3.0)
SHAPE, SEEDS = (4, 8, 8), (0,)


def window(steps: int) -> list[float]:
    """The sigmas of N intervals even in s."""
    return [to_sigma(HIGH + i / steps * (LOW - HIGH)) for i in range(steps + 1)]


def of_flow(entry: Entry, spacing: str | None = None, shift: float = 1.0) -> Scheduler:
    """The scheduler on a flow's schedule, without noise where it can be switched off."""
    eta = None if entry.eta is None else 0.0
    return resolve(entry.name, spacing, eta, {**FLOW, "shift": shift})


def variable(scheduler: Scheduler) -> str:
    given = getattr(scheduler.solver, "keywords", {})
    return given.get("variable", "")


def order(entry: Entry, over: str | None = None) -> Convergence:
    """Its errors on the window. over: in this variable, where it has one."""
    name = entry.name if over is None else f"{entry.name}:variable={over}"
    eta = None if entry.eta is None else 0.0
    solver = resolve(name, None, eta, FLOW).solver
    return measure(entry.name, solver, window, COUNTS, entry.order or None, rounding=False)


def whole(entry: Entry, steps: int, shift: float) -> str:
    """The largest error at the end of a whole run from pure noise."""
    try:
        scheduler = of_flow(entry, "simple", shift)
        plan = scheduler.plan(steps)
    except InputError:
        return "-"
    noise, world = SeededNoise(SEEDS, SHAPE), Mixture()
    x = noise.start().double() * plan.start_scale
    denoise = denoiser(world, process=RectifiedFlow(plan))
    *_, last = sample(denoise, x, plan.sigmas, scheduler.solver, noise)
    error = (last.x_next - world.flow(x, plan.sigmas[0], 1e-6)).abs().max().item()
    return f"{error:.2g}"


def rows(entries: list[Entry]) -> Iterator[list[str]]:
    for entry in tqdm(entries, desc="orders", leave=False, disable=None):
        found, in_s = order(entry), variable(of_flow(entry)) == "s"
        claims = str(entry.order) if entry.order else "none"
        in_sigma = f"{order(entry, 'sigma').errors[0]:.1e}" if in_s else ""
        yield [
            entry.name,
            "s" if in_s else "",
            claims,
            f"{found.order:.2f}",
            *(f"{error:.1e}" for error in found.errors[:3]),
            in_sigma,
            *(whole(entry, n, shift) for shift in SHIFTS for n in WHOLE),
        ]


def page() -> str:
    quiet = [entry for entry in TABLE if not (entry.stochastic and entry.eta is None)]
    noisy = ", ".join(entry.name for entry in TABLE if entry not in quiet)
    heads = [f"{n} steps, shift {shift:g}" for shift in SHIFTS for n in WHOLE]
    return "\n".join([
        "# Orders along the flow\n",
        "Written by `python -m scripts.flow_orders` (`make docs`). Every solver along the straight "
        "path of flow matching, x = (1 - s) x0 + s eps, with an exact network: the world is a "
        "mixture of three Gaussians, the answer its own flow, all in float64.\n",
        f"On the window from s = {HIGH} to {LOW}, N steps even in s: the largest error of 64 "
        f"values and its slope from N = {COUNTS[-2]} to {COUNTS[-1]}. *over*: a solver whose "
        "formulas are in sigma is run over s instead (`variable=s`, which a flow sets by itself); "
        "the next column is what it would err by at N = 10 if it stayed in sigma. Without a mark "
        "it integrates in log sigma, or needs no variable.\n",
        "The last columns are whole runs from pure noise to the picture on the spacing `simple`: "
        "1, 1 - 1/N ..., moved by the shift. The last step, from 1/N to 0, is Euler's with every "
        "one-step method: where many errors are alike, it is all that is left of them. Noise is "
        f"switched off; where it cannot be, a solver is left out ({noisy}).\n",
        table(
            ("solver", "over", "claims", "measured", *(f"N = {n}" for n in COUNTS[:3]),
             "N = 10 in sigma", *heads),
            rows(quiet),
        ),
        "\n## Runge-Kutta in every variable\n",
        "Each tableau on the same window by the option `variable`: the measured order, and the "
        f"error at N = {COUNTS[0]}.\n",
        by_variable(window, FEW),
    ]) + "\n"  # fmt: skip


@click.command()
@torch.inference_mode()
def main() -> None:
    """Measure, and write docs/orders-flow.md."""
    write_whole(PAGE, page().encode())
    print(PAGE)


if __name__ == "__main__":
    main()
