"""What the multistep solvers share: the integral of a polynomial through remembered predictions.

Every one of them replaces the model between two sigmas by the polynomial through its last
predictions and integrates that exactly. They differ in the variable (sigma, or lambda = -log
sigma), in what is interpolated (eps or x0) and in shortcuts that their papers take. All scalars are
Python floats.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from sdcore.sampling import Memo

Kind = Literal["x0", "eps"]
PhiRule = Callable[
    [int, float], list[float]
]  # (nodes, z) -> what replaces k! phi_k+1(z), k < nodes


def weights(nodes: Sequence[float], moments: Sequence[float]) -> list[float]:
    """Weights w with sum_j w_j p(nodes_j) = sum_k moments_k p_k for every polynomial p.

    p_k are the coefficients of p(u) = sum_k p_k u^k, of degree below the number of nodes; so with
    moments_k = the integral of u^k these integrate the Lagrange polynomials. Nodes must differ.
    """
    solved = []
    for j, node in enumerate(nodes):
        basis, scale = [1.0], 1.0  # prod (u - other), the constant first; its value at the node
        for other in (*nodes[:j], *nodes[j + 1 :]):
            basis = [a - other * b for a, b in zip((0.0, *basis), (*basis, 0.0), strict=True)]
            scale *= node - other
        solved.append(sum(map(float.__mul__, basis, moments)) / scale)
    return solved


def adams_weights(nodes: Sequence[float], length: float) -> list[float]:
    """Weights of the integral from 0 to length: Adams-Bashforth on unequal steps."""
    return weights(nodes, [length ** (k + 1) / (k + 1) for k in range(len(nodes))])


def phi(count: int, z: float) -> list[float]:
    """phi_1(z) .. phi_count(z), the functions of exponential integrators.

    phi_k(z) = integral_0^1 e^((1 - s) z) s^(k-1) / (k-1)! ds (Hochbruck & Ostermann 2010, eq.
    2.10).
    """
    if abs(z) < 1:  # upwards the recursion cancels: take the series of the last one, then downwards
        tail = 1.0
        for n in range(count + 16, count, -1):
            tail = 1 + z / n * tail
        values = [tail / math.factorial(count)]
        for k in range(count - 1, 0, -1):
            values.insert(0, 1 / math.factorial(k) + z * values[0])
        return values
    values = [math.expm1(z) / z]
    for k in range(1, count):
        values.append((values[-1] - 1 / math.factorial(k)) / z)
    return values


def exact(count: int, z: float) -> list[float]:
    """k! phi_k+1(z): the polynomial is integrated as it is."""
    return [math.factorial(k) * value for k, value in enumerate(phi(count, z))]


@lru_cache(maxsize=4096)
def exponential_weights(
    at: tuple[float, ...],
    sigma: float,
    sigma_next: float,
    rule: PhiRule = exact,
    form: Kind = "x0",
    eta: float = 0.0,
) -> tuple[float, ...]:
    """Weights of the predictions at these sigmas in a step from sigma to sigma_next > 0.

    The step is x_next = (sigma_next / sigma) x + sum_j w_j x0_j, or x_next = x + sum_j w_j eps_j
    (Lu et al. 2022: arXiv 2211.01095, eq. 9; arXiv 2206.00927, eq. 3.6), where h = log(sigma /
    sigma_next) and the integrals of u^k are k! h^(k+1) phi_k+1(-h), or of +h for eps.

    eta: share of the reverse SDE's noise. Its mean is the same step with (1 + eta) h in place of h,
    and for eps just (1 + eta) times as long (Xue et al. 2023, arXiv 2309.05019, eq. 11).

    They depend on the schedule alone, so they are remembered: the next picture has the same.
    """
    h = math.log(sigma / sigma_next)
    nodes = [math.log(sigma / other) for other in at]
    factors = rule(len(nodes), -(1 + eta) * h if form == "x0" else h)
    sign = (1 + eta) * (1.0 if form == "x0" else -sigma_next)
    moments = [sign * factor * h ** (k + 1) for k, factor in enumerate(factors)]
    return tuple(weights(nodes, moments))


def combine(x: Tensor, weights: Iterable[float], tensors: Iterable[Tensor]) -> Tensor:
    """x + sum_j w_j tensor_j, one pass each."""
    for weight, tensor in zip(weights, tensors, strict=True):
        x = torch.add(x, tensor, alpha=weight)
    return x


def exponential_step(
    x: Tensor, known: Sequence[Memo], sigma_next: float, rule: PhiRule = exact, eta: float = 0.0
) -> Tensor:
    """x at sigma_next > 0 from what is known, x0 or eps, the newest where x is."""
    at = tuple([memo.sigma for memo in known])
    form: Kind = "eps" if known[0].kind == "eps" else "x0"
    weighed = exponential_weights(at, at[0], sigma_next, rule, form, eta)
    start = x if form == "eps" else x * (sigma_next / at[0]) ** (1 + eta)
    return combine(start, weighed, [memo.value for memo in known])


def noise_std(sigma: float, sigma_next: float, eta: float) -> float:
    """Standard deviation of the noise that one step of the reverse SDE adds, x0 held.

    sigma_next^2 (1 - (sigma_next / sigma)^(2 eta)): what the step leaves open of the marginal. None
    into sigma 0 and on the way up (inversion).
    """
    if not 0 < sigma_next < sigma:
        return 0.0
    return sigma_next * math.sqrt(-math.expm1(2 * eta * math.log(sigma_next / sigma)))
