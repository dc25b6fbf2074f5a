"""Tableaux held to the order conditions, and their methods to the order, in every variable."""

import itertools
import math
from collections.abc import Iterator
from functools import cache, partial

import pytest
import torch

from sdcore.errors import InputError
from sdcore.lab import Gaussian
from sdcore.lab.order import measure
from sdcore.sampling import sample
from sdcore.schedulers.solvers.heun import heun
from sdcore.schedulers.solvers.runge_kutta import ENTRIES, TABLEAUX, VARIABLES, Tableau, runge_kutta

ORDERS = {entry.name: entry.order for entry in ENTRIES}
Tree = tuple["Tree", ...]  # a rooted tree: its branches


@cache
def trees(order: int) -> frozenset[Tree]:
    """All rooted trees of so many nodes: 1, 1, 2, 4, 9, 20."""
    if order == 1:
        return frozenset({()})
    return frozenset(
        tuple(sorted(branches))
        for sizes in _partitions(order - 1, order - 1)
        for branches in itertools.product(*(trees(size) for size in sizes))
    )


def _partitions(total: int, most: int) -> Iterator[tuple[int, ...]]:
    if total == 0:
        yield ()
    for first in range(min(total, most), 0, -1):
        yield from ((first, *rest) for rest in _partitions(total - first, first))


def size(tree: Tree) -> int:
    return 1 + sum(map(size, tree))


def gamma(tree: Tree) -> int:
    return size(tree) * math.prod(map(gamma, tree))


def weights(tree: Tree, tableau: Tableau) -> list[float]:
    """prod over the branches of sum_j a_ij weights_j, for each stage i."""
    inner = [weights(branch, tableau) for branch in tree]
    return [
        math.prod(math.fsum(a * w for a, w in zip(row, each, strict=False)) for each in inner)
        for row in tableau.a
    ]


def defect(tableau: Tableau, tree: Tree) -> float:
    """What is left of the tree's order condition (Butcher 2016, theorem 315A)."""
    phi = math.fsum(b * w for b, w in zip(tableau.b, weights(tree, tableau), strict=True))
    return abs(phi - 1 / gamma(tree))


def test_trees() -> None:
    assert [len(trees(order)) for order in range(1, 7)] == [1, 1, 2, 4, 9, 20]
    assert sorted(map(gamma, trees(4))) == [4, 8, 12, 24]


@pytest.mark.parametrize("name", TABLEAUX)
def test_order_conditions(name: str) -> None:
    order = ORDERS[name]
    for nodes in range(1, order + 1):
        assert max(defect(TABLEAUX[name], tree) for tree in trees(nodes)) < 1e-14 * 10**2
    assert max(defect(TABLEAUX[name], tree) for tree in trees(order + 1)) > 1e-5


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("name", TABLEAUX)
def test_the_order_is_reached(name: str, variable: str) -> None:
    counts = (40, 80) if ORDERS[name] < 5 else (20, 40)
    solver = partial(runge_kutta, tableau=name, variable=variable)
    found = measure(name, solver, counts=counts, claimed=ORDERS[name], rounding=False)
    assert found.order >= ORDERS[name] - 0.35, found


def test_heun_is_a_tableau() -> None:
    tableau = Tableau(((), (1.0,)), (0.5, 0.5))
    x, sigmas = torch.linspace(-3, 3, 8, dtype=torch.float64).reshape(1, 1, 2, 4), (4.0, 1.5, 0.0)
    world = Gaussian(0.3, 0.5)
    ours = [s.x_next for s in sample(world, x, sigmas, partial(runge_kutta, tableau=tableau))]
    theirs = [s.x_next for s in sample(world, x, sigmas, heun)]
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() < 1e-14


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [(((), (1.0, 2.0)), (0.5, 0.5), "row i"), (((),), (0.5,), "add up to 1"), ((), (), "add up")],
)
def test_what_is_no_tableau(a: tuple, b: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Tableau(a, b)


def test_an_unknown_name() -> None:
    with pytest.raises(InputError, match="unknown tableau 'rk5': known are midpoint"):
        next(sample(Gaussian(), torch.zeros(1), (2.0, 1.0), partial(runge_kutta, tableau="rk5")))
