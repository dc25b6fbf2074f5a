"""Dynamic thresholding: a denoiser whose x0 is kept within bounds."""

from dataclasses import replace

from torch import Tensor

from sdcore.guidance.threshold import bounded
from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction, Solver


def thresholded(solver: Solver, ratio: float, most: float, keep_eps: bool) -> Solver:
    """The solver on a model whose x0 is clipped (Saharia et al. 2022, arXiv 2205.11487, sec. 2.3).

    In each image s is the `ratio` quantile of |x0|, kept in 1 to `most`; x0 is clipped to -s .. s
    and divided by s.
    Meant for pixels in [-1, 1]: latents have no such bounds, so SD's own configs leave it off.
    keep_eps: as in diffusers' DDIM, which leaves eps; else it follows x0.
    """

    def step(
        denoise: Denoise, x: Tensor, interval: Interval, memory: Memory, draw: Draw
    ) -> tuple[Tensor, Prediction, Memory]:
        def clipped(x: Tensor, sigma: float) -> Prediction:
            prediction = denoise(x, sigma)
            x0 = bounded(prediction.x0, ratio, 1.0, most)
            eps = prediction.eps if keep_eps or sigma == 0 else (x - x0) / sigma
            return replace(prediction, x0=x0, eps=eps)

        return solver(clipped, x, interval, memory, draw)

    return step
