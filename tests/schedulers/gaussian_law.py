"""The exact law of what a solver returns in a Gaussian world, in float64 and without sampling.

There the denoiser is affine, so every step is affine in x and in its noise. A tensor here holds
coefficients: of 1, of the starting noise, and of each elementary noise that was drawn. The solver
adds and scales them like any x; the mean is the first one and the variance the others' squares.
"""

import itertools
import math

import torch

from sdcore.sampling import Prediction, sample

MEAN, STD = 0.3, 0.5


def law(solver, sigmas, mean=MEAN, std=STD, brownian=False, consistency=False):
    """(mean, std) of x at the last sigma, started from the exact marginal at the first.

    brownian: the draws are increments of one path; else they are independent. consistency: the
    network is the world's consistency function (the probability flow's end) and not E[x0 | x].
    """
    drawn = []

    def denoise(x, sigma):
        share = std**2 / (std**2 + sigma**2)
        share = math.sqrt(share) if consistency else share
        x0 = x * share
        x0[0] += (1 - share) * mean
        return Prediction(x0, (x - x0) / sigma)

    def note(draw, sigma, sigma_next):
        drawn.append((sigma, sigma_next))
        return torch.zeros_like(start)

    start = torch.zeros(2, dtype=torch.float64)
    list(sample(denoise, start, sigmas, solver, note))
    ends = sorted({sigma for pair in drawn for sigma in pair})
    size = 2 + (len(ends) if brownian else len(drawn))

    def noise(draw, sigma, sigma_next):
        unit = torch.zeros(size, dtype=torch.float64)
        if not brownian:
            unit[2 + draw] = 1
            return unit
        low, high = sorted((sigma, sigma_next))
        for i, (a, b) in enumerate(itertools.pairwise(ends)):
            if low <= a and b <= high:
                unit[2 + i] = math.copysign(math.sqrt((b - a) / (high - low)), sigma_next - sigma)
        return unit

    start = torch.zeros(size, dtype=torch.float64)
    start[0], start[1] = mean, math.hypot(std, sigmas[0])
    *_, last = sample(denoise, start, sigmas, solver, noise)
    return last.x_next[0].item(), last.x_next[1:].norm().item()
