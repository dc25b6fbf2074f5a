"""Write docs/orders.md, changes.md and parity.md: `python -m scripts.write_docs` (make docs).

Orders come from the laboratory. Parity is the maximum absolute error of whole fed-back runs with
the stand-in network of scripts/trajectories.py, against diffusers and k-diffusion as they are
installed; the bundled model's is printed by `make parity`.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import click
import torch
from torch import Tensor
from tqdm import tqdm

from scripts import trajectories
from sdcore.compare.quirks import QUIRKS
from sdcore.denoiser import Denoiser
from sdcore.errors import InputError
from sdcore.guidance import CFG
from sdcore.lab import Gaussian, Window, measure
from sdcore.lab.change import KINDS
from sdcore.lab.change import table as change
from sdcore.lab.order import FLOOR, Convergence, Sigmas, measure_scheduler
from sdcore.noise import SeededNoise
from sdcore.process import VariancePreserving
from sdcore.sampling import sample
from sdcore.schedulers import SPACINGS, TABLE, Entry, resolve
from sdcore.schedulers.conventions import CONVENTIONS
from sdcore.schedulers.solvers.runge_kutta import VARIABLES, runge_kutta
from sdcore.schedulers.tableau import TABLEAUX
from sdcore.writing import write_whole

DOCS = Path(__file__).parents[1] / "docs"
BEFORE = Path(__file__).parent / "changes_before.json"  # told in sdcore/lab/change.py
STEPS = 20
COUNTS = (10, 20, 40, 120, 160, 320)
FEW = (10, 20, 40, 80)
PUBLISHED_AND_CORRECTED = ("dpmpp_3m", "dpmpp_3m_taylor")

# A spacing of diffusers as a field of its config.
FIELDS: dict[str, dict[str, object]] = {
    "leading": {"timestep_spacing": "leading"},
    "trailing": {"timestep_spacing": "trailing"},
    "linspace": {"timestep_spacing": "linspace"},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
    "lcm": {},
}
OWN_TIMESTEPS = ("LCMScheduler", "TCDScheduler")  # they lay lcm, and nothing else
IGNORES_SPACING = "DPMSolverSinglestepScheduler"  # it lays linspace, whatever it is told
# Entries that are a class of diffusers with other fields, where their own options do not say so.
AS_FIELDS: dict[str, dict[str, object]] = {
    "dpmpp_3m": {"solver_order": 3},
    "pndm_prk": {"skip_prk_steps": False},
    "dpm_2m": {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
    "dpm_3m": {
        "algorithm_type": "dpmsolver",
        "solver_order": 3,
        "final_sigmas_type": "sigma_min",
    },
}
# k-diffusion's function of the same method, and what switches its noise off.
K_DIFFUSION: dict[str, tuple[str, dict[str, float]]] = {
    "euler": ("sample_euler", {}),
    "heun": ("sample_heun", {}),
    "dpm2": ("sample_dpm_2", {}),
    "lms": ("sample_lms", {}),
    "dpmpp_2m": ("sample_dpmpp_2m", {}),
    "euler_a": ("sample_euler_ancestral", {"eta": 0.0}),
    "dpm2_a": ("sample_dpm_2_ancestral", {"eta": 0.0}),
    "dpmpp_2s_a": ("sample_dpmpp_2s_ancestral", {"eta": 0.0}),
    "dpmpp_sde": ("sample_dpmpp_sde", {"eta": 0.0}),
    "dpmpp_2m_sde": ("sample_dpmpp_2m_sde", {"eta": 0.0}),
    "dpmpp_3m_sde": ("sample_dpmpp_3m_sde", {"eta": 0.0}),
}


def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def orders() -> str:
    """The text of docs/orders.md."""
    found = {e.name: measure_scheduler(e.name, counts=COUNTS) for e in bar(TABLE, "orders")}
    parts = [
        "# Orders\n",
        "Written by `make docs`; `sdcore lab order` prints the same for any solver, spacing and N "
        "([writing-a-solver.md](writing-a-solver.md)).\n",
        "The error is the largest over 64 values in a world of three Gaussians, in float64, from "
        "sigma 10 to 0.1 on N steps even in sigma^(1/7), against the exact flow. The order is its "
        f"slope from N = {COUNTS[-2]} to {COUNTS[-1]}, or between the last two that are above "
        f"rounding, {FLOOR:g}. Noise is switched off; where it cannot be, "
        "the error is that of the variance in a Gaussian world. NFE a step is the table's; a first "
        "or last step may differ.\n",
        table(
            ("solver", "claims", "measured", "NFE a step", *(f"N = {n}" for n in COUNTS[:3]), "of"),
            (order_row(entry, found[entry.name]) for entry in TABLE),
        ),
    ]
    parts += [
        "\n## Runge-Kutta in every variable\n",
        "Each tableau of `sdcore/schedulers/tableaux` by the option `variable`: the measured "
        f"order, and the error at N = {COUNTS[0]}. *lambda_eps* and *lambda* integrate a constant "
        "eps or x0 exactly, as DPM-Solver and DPM-Solver++ do; *s* is the time of flow matching.\n",
        by_variable(None, FEW),
    ]
    if all(name in found for name in PUBLISHED_AND_CORRECTED):
        parts += [
            "\n## The third order that is not\n",
            third_order(*(found[n] for n in PUBLISHED_AND_CORRECTED)),
        ]
    noisy = [entry for entry in TABLE if entry.stochastic]
    parts += [
        "\n## With noise\n",
        "The variance at the end of a run with the default noise, propagated exactly in a Gaussian "
        "world (mean 0.3, std 0.5; sigma 10 to 0.1): what it is off, relative to the exact 0.26.\n",
        table(
            ("solver", *(f"N = {n}" for n in COUNTS[:3])),
            (variance_row(entry) for entry in bar(noisy, "variances")),
        ),
        "\n## The last interval\n",
        f"DPM++ 2M into sigma 0, N = {STEPS}: the error of the method at the last sigma above 0, "
        "and of the last interval alone, which is one first-order step. Where the second is the "
        "larger, no solver can do better on that spacing.\n",
        table(
            ("spacing", "last interval", "of the method", "of the last interval", "in float32"),
            (last_row(name) for name in bar(list(SPACINGS), "spacings")),
        ),
    ]
    return "\n".join(parts) + "\n"


def by_variable(sigmas: Sigmas | None, counts: Sequence[int]) -> str:
    """The table of every tableau's order and first error, in every variable."""

    def row(name: str) -> list[str]:
        ways = [partial(runge_kutta, tableau=name, variable=variable) for variable in VARIABLES]
        found = [measure(name, way, sigmas, counts, rounding=False) for way in ways]
        cells = [f"{each.order:.2f} ({each.errors[0]:.1e})" for each in found]
        return [name, str(TABLEAUX[name].order), *cells]

    names = bar(list(TABLEAUX), "tableaux")
    return table(("tableau", "claims", *VARIABLES), (row(name) for name in names))


def changes() -> str:
    """The text of docs/changes.md."""
    old = json.loads(BEFORE.read_text())
    names = [entry.name for entry in TABLE]
    now = {name: row for name in bar(names, "changes") for name, row in change([name]).items()}

    def cells(name: str) -> list[str]:
        row, then = now[name], old.get(name, {})
        before = {kind: "not finite" if e is None else f"{e:.1e}" for kind, e in then.items()}
        was = {kind: f" ({before[kind]})" if kind in before else "" for kind in KINDS}
        return [name, *(f"{row[kind]:.1e}{was[kind]}" for kind in KINDS)]

    return "\n".join([
        "# Changing midway\n",
        "Written by `make docs`; `sdcore lab change` prints the same for any solver and N.\n",
        "Ten of twenty steps from sigma 10 to 0.1, even in sigma^(1/7), then twenty even in "
        "log sigma for the rest, where one thing is another. The error is that of the whole, "
        "the largest of 64 values, in float64 against the exact flow. *Afresh*: the new grid, "
        "and nothing is remembered. *Grid*: the solver goes on with what it remembers. "
        "*Solver*: it takes over from DPM++ 2M or LMS (the worse of the two, whose first half "
        "it inherits). *Guidance*: scale 3 after 1. In brackets what it was when solvers "
        "remembered tensors without their sigmas, and took them for the new grid's.\n",
        table(("solver", *KINDS), (cells(name) for name in now)),
    ]) + "\n"  # fmt: skip


def order_row(entry: Entry, found: Convergence) -> list[str]:
    claims = str(entry.order) if entry.order else "none"
    errors = [f"{error:.1e}" for error in found.errors[:3]]
    what = "the flow" if found.how == "flow" else "the variance"
    return [entry.name, claims, f"{found.order:.2f}", str(entry.nfe), *errors, what]


def third_order(published: Convergence, corrected: Convergence) -> str:
    at = COUNTS.index(STEPS)
    return (
        "The published third-order multistep formula of DPM-Solver++ takes the second divided "
        "difference where Taylor's series has the second derivative, twice that, and is of second "
        f"order: `dpmpp_3m`, measured {published.order:.2f}. With the factor 2 it is of third: "
        f"`dpmpp_3m_taylor`, measured {corrected.order:.2f}. At N = {STEPS} their errors are "
        f"{published.errors[at]:.1e} and {corrected.errors[at]:.1e}, at N = {COUNTS[-1]} "
        f"{published.errors[-1]:.1e} and {corrected.errors[-1]:.1e}."
    )


def variance_row(entry: Entry) -> list[str]:
    found = measure(
        entry.name,
        resolve(entry.name).solver,
        Window(),
        COUNTS[:3],
        world=Gaussian(0.3, 0.5),
        brownian=entry.noise == "brownian",
    )
    return [entry.name, *(f"{error / 0.26:.1e}" for error in found.errors)]


def last_row(spacing: str) -> list[str]:
    sigmas = resolve("dpmpp_2m", spacing).plan(STEPS).sigmas
    found = measure_scheduler("dpmpp_2m", spacing, counts=(STEPS,))
    last = f"{found.last[-1]:.1e}" if found.last else "-"
    jump = f"{sigmas[-2]:.4f} to {sigmas[-1]:.4f}"
    return [spacing, jump, f"{found.errors[-1]:.1e}", last, f"{found.rounding[-1]:.1e}"]


def parity() -> str:
    """The text of docs/parity.md."""
    rows = bar([entry for entry in TABLE if diffusers_fields(entry) is not None], "diffusers")
    peers = [entry for entry in TABLE if entry.name in K_DIFFUSION]
    return (
        "\n".join(
            [
                "# Parity\n",
                "Written by `make docs`. The maximum absolute error of the final latents of whole "
                f"fed-back runs, N = {STEPS}, float32, relative to the largest latent if that is "
                "above 1, with a network that is not linear in x "
                "([scripts/trajectories.py](../scripts/trajectories.py)). "
                "`make parity` prints the same with the bundled model. A star: more than "
                "1e-5, for a reason that the tests name; most are among the cases below.\n",
                f"## diffusers {importlib.metadata.version('diffusers')}\n",
                table(("solver", "class", *FIELDS), (diffusers_row(entry) for entry in rows)),
                f"\n## k-diffusion {importlib.metadata.version('k-diffusion')}\n",
                "On its own Karras sigmas, noise switched off.\n",
                table(
                    ("solver", "function", "max abs error"),
                    (
                        [entry.name, f"`{K_DIFFUSION[entry.name][0]}`", k_diffusion_cell(entry)]
                        for entry in bar(peers, "k-diffusion")
                    ),
                ),
                "\n## Where the reference is wrong\n",
                "Each case is measured by a test, which takes its number from "
                "[sdcore/compare/quirks.py](../sdcore/compare/quirks.py).\n",
                table(
                    ("case", "reference", "number", "what it does", "test"),
                    (
                        [f"`{q.name}`", q.reference, f"{q.number:g}", q.what, f"`{q.test}`"]
                        for q in QUIRKS
                    ),
                ),
            ]
        )
        + "\n"
    )


def diffusers_fields(entry: Entry) -> dict[str, object] | None:
    """The config fields under which diffusers' class is this entry; None where it is not."""
    if entry.noise == "brownian":  # the reference draws other numbers
        return None
    known = CONVENTIONS[entry.class_name].fields
    fields = {key: value for key, value in entry.options.items() if key in known}
    if entry.name in AS_FIELDS:
        return AS_FIELDS[entry.name]
    return fields if fields or entry.class_name in entry.labels else None


def diffusers_row(entry: Entry) -> list[str]:
    fields = diffusers_fields(entry) or {}
    return [
        entry.name,
        entry.class_name,
        *(
            diffusers_cell(entry, {**fields, **spacing}, name) if has(entry, name) else "-"
            for name, spacing in FIELDS.items()
        ),
    ]


def has(entry: Entry, spacing: str) -> bool:
    """Whether diffusers' class can lay this spacing."""
    if entry.class_name in OWN_TIMESTEPS or spacing == "lcm":
        return entry.class_name in OWN_TIMESTEPS and spacing == "lcm"
    if entry.class_name == IGNORES_SPACING and spacing in ("leading", "trailing"):
        return False
    return set(FIELDS[spacing]) <= set(CONVENTIONS[entry.class_name].fields)


def diffusers_cell(entry: Entry, fields: dict[str, object], spacing: str) -> str:
    import diffusers

    diffusers.logging.set_verbosity_error()
    config = {**trajectories.SD, **fields}
    try:
        ours = resolve(entry.name, spacing, config=config)
        found = trajectories.our_latents(ours, STEPS)
    except InputError:
        return "refused"
    theirs = getattr(diffusers, entry.class_name).from_config(config)
    return cell(found, trajectories.diffusers_latents(theirs, STEPS))


def k_diffusion_cell(entry: Entry) -> str:
    from scripts.k_diffusion import samplers

    function, options = K_DIFFUSION[entry.name]
    scheduler = resolve(entry.name, "karras", eta=0.0)
    plan = resolve("euler", "karras").plan(STEPS)
    sigmas = torch.tensor(plan.sigmas)
    told = {"cond": {"context": torch.zeros(len(trajectories.SEEDS), 1, 1)}}
    denoise = Denoiser(trajectories.wavy, VariancePreserving(plan.noise_schedule), told, CFG(1))
    x = SeededNoise(trajectories.SEEDS, trajectories.SHAPE).start() * plan.sigmas[0]

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        return denoise(x, sigma[0].item()).x0

    theirs = getattr(samplers(), function)(model, x, sigmas, disable=True, **options)
    silence: Callable[..., Tensor] = lambda *_: torch.zeros_like(x)  # noqa: E731
    ours = list(sample(denoise, x, sigmas.tolist(), scheduler.solver, silence))[-1].x_next
    return cell(ours, theirs)


def cell(ours: Tensor, theirs: Tensor) -> str:
    if not theirs.isfinite().all():
        return "not finite there *" if ours.isfinite().all() else "not finite"
    error = trajectories.apart(ours, theirs)
    return f"{error:.1e}" + ("" if error <= 1e-5 else " *")


def bar(items: Sequence, what: str) -> Iterator:
    """The items, under a progress bar on a terminal."""
    return iter(tqdm(items, desc=what, leave=False, disable=None))


@click.command()
@click.option("--only", type=click.Choice(["orders", "changes", "parity"]), help="One of them.")
@torch.inference_mode()
def main(only: str | None) -> None:
    """Measure, and write docs/orders.md, changes.md and parity.md."""
    for name, write in (("orders", orders), ("changes", changes), ("parity", parity)):
        if only in (None, name):
            path = DOCS / f"{name}.md"
            write_whole(path, write().encode())
            print(path)


if __name__ == "__main__":
    main()
