"""The beta distribution's quantiles, without scipy."""

import math

TERMS = 20  # of the continued fraction; 15 reach 2e-14
ROUNDS = 60  # of Newton's method, which takes 4 to 8; bisection alone would take 53


def cdf(x: float, a: float, b: float) -> float:
    """I_x(a, b), the regularised incomplete beta function (DLMF 8.17.22), 0 <= x <= 1."""
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly (DLMF 8.17.4)
        return 1 - cdf(1 - x, b, a)
    fraction = 1.0
    for m in reversed(range(TERMS)):
        even = (m + 1) * (b - m - 1) * x / ((a + 2 * m + 1) * (a + 2 * m + 2))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        fraction = 1 + odd / (1 + even / fraction)
    return x * density(x, a, b) * (1 - x) / a / fraction


def density(x: float, a: float, b: float) -> float:
    """x^(a-1) (1-x)^(b-1) / B(a, b), 0 < x < 1."""
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    return math.exp((a - 1) * math.log(x) + (b - 1) * math.log1p(-x) - log_beta)


def quantile(p: float, a: float, b: float) -> float:
    """The x with I_x(a, b) = p, to 1e-14: Newton's method, kept in a shrinking bracket."""
    low, high, x = 0.0, 1.0, 0.5
    if p in (low, high):
        return p
    for _ in range(ROUNDS):
        error = cdf(x, a, b) - p
        low, high = (low, x) if error > 0 else (x, high)
        newton = x - error / density(x, a, b)
        following = newton if low < newton < high else (low + high) / 2
        if abs(following - x) <= 2e-15 * x:
            break
        x = following
    return x
