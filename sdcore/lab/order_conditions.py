"""The order that a tableau has, by the conditions of its rooted trees (Butcher 2016, Numerical
Methods for Ordinary Differential Equations, sections 301 and 315)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import cache

from sdcore.schedulers.tableau import Tableau

Tree = tuple["Tree", ...]  # a rooted tree: its branches
MOST = 10  # of which order there are 719 trees; of 12 there are 4,766
CLOSE = 1e-8  # what a sum of printed numbers may be rounded by


@cache
def trees(order: int) -> frozenset[Tree]:
    """All rooted trees of so many nodes: 1, 1, 2, 4, 9, 20, 48 ..."""
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


def gamma(tree: Tree) -> int:
    """The density of a tree."""
    return _size(tree) * math.prod(map(gamma, tree))


def _size(tree: Tree) -> int:
    return 1 + sum(map(_size, tree))


def defect(tableau: Tableau, b: Sequence[float], nodes: int) -> float:
    """The most that is left of a condition of so many nodes, |sum_i b_i Phi_i - 1 / gamma|."""
    known: dict[Tree, list[float]] = {}

    def weights(tree: Tree) -> list[float]:
        """Phi_i: the product over the branches of sum_j a_ij Phi_j, for each stage i."""
        if tree not in known:
            inner = [weights(branch) for branch in tree]
            known[tree] = [
                math.prod(math.fsum(map(float.__mul__, row, each)) for each in inner)
                for row in tableau.a
            ]
        return known[tree]

    return max(
        abs(math.fsum(map(float.__mul__, b, weights(tree))) - 1 / gamma(tree))
        for tree in trees(nodes)
    )


def broken_condition(tableau: Tableau) -> str:
    """The first condition, up to MOST nodes, that a method of a tableau does not keep of the order
    that it claims; "" where it keeps them all."""
    methods = ((tableau.order, tableau.b), (tableau.embedded_order, tableau.embedded))
    for order, b in (each for each in methods if each[1]):
        for nodes in range(1, min(order, MOST) + 1):
            off = defect(tableau, b, nodes)
            if off > CLOSE:
                what = "the method" if b is tableau.b else "the embedded method"
                return f"{what} claims order {order}, and is off by {off:.2g} in order {nodes}"
    return ""
