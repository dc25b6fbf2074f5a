"""A State is true: going on from it with another grid, solver or guidance is right."""

import json
from dataclasses import replace
from itertools import islice

import pytest
import torch

from sdcore.cli import main
from sdcore.errors import InputError
from sdcore.lab import Mixture
from sdcore.lab.change import FIRST, error_after, rest, silent
from sdcore.lab.order import _steps, starting_values
from sdcore.noise import SeededNoise
from sdcore.sampling import Memo, State, sample
from sdcore.schedulers import TABLE, resolve

SILENT = [entry.name for entry in TABLE if silent(entry.name) is not None]
NOISY = ["euler_a", "dpmpp_2m_sde", "dpmpp_3m_sde_taylor", "er_sde", "sa_solver", "ddpm"]
X = starting_values(FIRST.start)


def half(solver, count=20, at=10):
    return _steps(Mixture(), X, FIRST(count), solver)[at - 1].state


# What remembers nothing has nothing to be wrong about.
CLAIMS = [(e.name, e.order) for e in TABLE if e.name in SILENT and half(silent(e.name)).memory]


@pytest.mark.parametrize("name", [*SILENT, *NOISY])
def test_a_fresh_list_is_the_spliced_one(name):
    """What is remembered has its own sigmas: where in the list the run goes on does not matter."""
    solver = silent(name) if name not in NOISY else resolve(name).solver
    noise = SeededNoise((0,), X.shape[1:])
    *_, step = islice(sample(Mixture(), X, FIRST(20), solver, noise), 10)
    state, fresh = step.state, rest(FIRST(20)[10], 20)
    spliced = [*FIRST(20)[:10], *fresh]
    a, b = (
        list(sample(Mixture(), replace(state, index=i), sigmas, solver, noise))[-1]
        for i, sigmas in ((0, fresh), (10, spliced))
    )
    assert torch.equal(a.x_next, b.x_next)


@pytest.mark.parametrize("name", SILENT)
def test_a_list_that_begins_where_x_is_goes_on_like_the_old_one(name):
    solver, whole = silent(name), FIRST(30)
    undisturbed = _steps(Mixture(), X, whole, solver)[-1].x_next
    state, sigmas = half(solver, 30).onto(whole)
    assert sigmas == tuple(whole[10:])
    assert torch.equal(_steps(Mixture(), state, sigmas, solver)[-1].x_next, undisturbed)


@pytest.mark.parametrize("kind", ["grid", "solver", "guidance"])
@pytest.mark.parametrize(("name", "order"), CLAIMS)
def test_the_claimed_order_survives_a_change(name, order, kind):
    """The solvers before it, of second order, are no better in what they leave behind."""
    order, solver = min(order, 2) if kind == "solver" else order, silent(name)
    assert solver is not None
    coarse = max(error_after(kind, solver, n) * n**order for n in (20, 40))
    assert error_after(kind, solver, 160) * 160**order <= 8**0.3 * coarse


def test_a_state_of_another_schedule_is_refused():
    state = half(resolve("dpmpp_2m").solver)
    assert state.sigma == FIRST(20)[10]
    with pytest.raises(InputError, match=r"x is at sigma .* take state.onto\(sigmas\)"):
        next(sample(Mixture(), state, rest(5.0, 20), resolve("dpmpp_2m").solver))
    with pytest.raises(InputError, match="nothing to go on with"):
        state.onto([10.0, 5.0])
    with pytest.raises(InputError, match="nothing to go on with"):
        State(X).onto(FIRST(20))


@pytest.mark.parametrize("name", SILENT)
def test_what_is_remembered_can_be_written_down(name):
    """Tensors, and beside them numbers and texts."""
    for step in _steps(Mixture(), X, FIRST(6), silent(name)):
        for memo in step.memory:
            assert isinstance(memo, Memo)
            assert memo.value.shape == X.shape
            plain = [memo.kind, memo.sigma, memo.origin, list(memo.note)]
            assert json.loads(json.dumps(plain)) == plain


def test_memory_behind_and_of_the_same_origin_only():
    from sdcore.sampling import Interval, Prediction
    from sdcore.schedulers.solvers.past import past

    here = Prediction(X, X, origin="a")
    interval = Interval(1.0, 0.5, 0, 1, (1.0, 0.5))
    memory = (Memo("x0", 2.0, X, "b"), Memo("eps", 2.0, X, "a"), Memo("x0", 3.0, X, "a"),
              Memo("x0", 2.5, X, "a"), Memo("x0", 9.0, X, "a"))  # fmt: skip
    assert [memo.sigma for memo in past("x0", here, interval, memory)] == [1.0, 3.0]
    rising = replace(interval, sigma_next=1.5)
    assert [memo.sigma for memo in past("x0", here, rising, memory)] == [1.0]


def test_the_command_prints_the_table(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["lab", "change", "euler", "unipc", "restart", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert stop.value.code == 0
    assert list(rows) == ["euler", "unipc"]
    assert max(rows["unipc"].values()) < 5e-3 < min(rows["euler"].values())
