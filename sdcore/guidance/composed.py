"""Composable diffusion: several prompts, each with its weight."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from sdcore.errors import InputError
from sdcore.guidance.base import Source
from sdcore.guidance.cfg import CFG
from sdcore.sampling import Prediction


@dataclass(frozen=True)
class Composed:
    """Several prompts at once (Liu et al. 2022, arXiv 2206.01714, eq. 11).

    uncond + scale * sum_i weights_i (cond_i - uncond): the picture's own prompt with the first
    weight, then each of `prompts`. A negative weight leads away. With no more prompts and weight 1
    it is CFG. Raises InputError where the weights are not one more than the prompts.
    """

    scale: float = 7.5
    prompts: tuple[str, ...] = ()
    weights: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.prompts) + 1:
            raise InputError("composed needs a weight for the prompt, and one for each more")

    @property
    def names(self) -> tuple[str, ...]:
        return ("cond", *(f"cond {i}" for i in range(2, len(self.weights) + 1)))

    @property
    def sources(self) -> Mapping[str, Source]:
        pairs = zip(self.names[1:], self.prompts, strict=True)
        return {name: Source(text=text) for name, text in pairs}

    def branches(self, sigma: float) -> tuple[str, ...]:
        if self.weights == (1.0,):
            return CFG(self.scale).branches(sigma)
        return ("uncond", *self.names)

    def combine(self, predictions: Mapping[str, Prediction], x: Tensor, sigma: float) -> Prediction:
        if self.weights == (1.0,):
            return CFG(self.scale).combine(predictions, x, sigma)
        uncond = predictions["uncond"]
        x0, eps = uncond.x0, uncond.eps
        for name, weight in zip(self.names, self.weights, strict=True):
            share = self.scale * weight
            x0 = x0 + share * (predictions[name].x0 - uncond.x0)
            eps = eps + share * (predictions[name].eps - uncond.eps)
        return Prediction(x0, eps)
