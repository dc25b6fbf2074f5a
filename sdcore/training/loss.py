"""What training makes small: the error of what a network says at noise levels drawn by chance."""

from collections.abc import Callable

import torch
from torch import Tensor

from sdcore.process import FLOW, Process


def squared_error(
    network: Callable[[Tensor, Tensor], Tensor],
    process: Process,
    x0: Tensor,
    eps: Tensor,
    sigma: Tensor,
    t: Tensor,
) -> Tensor:
    """The mean squared error of each picture of a batch, [B], in float32 (Ho et al. 2020, eq. 14).

    ||F(c_in(sigma) x, t) - raw(x0, eps, sigma)||^2 with x = x0 + sigma eps: what a Denoiser asks
    the network F at this x, against what a perfect one would say.

    network: (input [B,C,H,W], t [B]) -> [B,C,H,W], with its conditions.
    process: what it is trained on.
    x0, eps: clean latents and noise of unit variance [B,C,H,W].
    sigma, t: the noise level of each picture, and that level on the process's clock, [B] both.
    """
    sigma = sigma.view(-1, 1, 1, 1)
    output = network((x0 + sigma * eps) * process.c_in(sigma), t)
    return (output.float() - process.raw(x0, eps, sigma)).square().mean(dim=(1, 2, 3))


def min_snr_weight(prediction_type: str, sigma: Tensor, gamma: float) -> Tensor:
    """The weight of a squared error by its noise level, any shape (Hang et al. 2023, section 3.4).

    With snr = 1 / sigma^2: min(snr, gamma) of an error in x0, which is min(1, gamma / snr) of one
    in eps and min(snr, gamma) / (snr + 1) of one in v; of a flow's v it is min(snr, gamma) s^2 with
    s = sigma / (1 + sigma). Where there is no signal left, snr 0, it is finite: no division of
    nothing by nothing. gamma 0: 1 everywhere.
    """
    if gamma == 0:
        return torch.ones_like(sigma)
    snr = sigma**-2.0
    if prediction_type == "epsilon":
        return (gamma * sigma**2).clamp(max=1)
    clipped = snr.clamp(max=gamma)
    if prediction_type == FLOW:
        return clipped / (1 + snr.sqrt()) ** 2
    return clipped / (snr + 1) if prediction_type == "v_prediction" else clipped
