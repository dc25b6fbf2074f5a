"""Noise from one Brownian path per image, so that runs of 10 and of 20 steps see the same noise.

k-diffusion's SDE samplers take theirs from torchsde's tree. This one is hashed dyadic bisection:
the path's value at each midpoint comes from a generator seeded by the image and the point.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdcore.errors import InputError, unknown
from sdcore.extensions import find, names
from sdcore.keywords import keywords
from sdcore.noise import SeededNoise
from sdcore.user_file import blame, load_object
from sdcore.written import parse

DEPTH = 20  # bisections; points closer than 2^-20 of sigma lie on a straight piece of the path
SMALLEST = 2.0**-12  # from 0 to here it is one interval; above, one for each doubling of sigma


@dataclass(frozen=True)
class BrownianNoise(SeededNoise):
    """A Noise that is a pure function of (seeds, sigma, sigma_next); the draw number is not used.

    It is W(sigma_next) - W(sigma) of a Brownian motion W in sigma, divided by its standard
    deviation. So the noises of an interval's parts add up to that of the whole, whatever the steps
    are and in whatever order they are asked for. The starting noise is SeededNoise's. Made in
    float64, handed out in float32.
    """

    _path: dict[float, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __call__(self, draw: int, sigma: float, sigma_next: float) -> Tensor:
        """[B,C,H,W], unit variance, for sigma > sigma_next >= 0.

        Raises InputError for a sigma_next that is not below sigma: who goes up to come down again
        (churn) would add noise once more that x holds already.
        """
        if not 0 <= sigma_next < sigma:
            raise InputError(
                f"Brownian noise is for a falling sigma, not for {sigma:g} to {sigma_next:g}; "
                "a scheduler that raises it (churn) needs independent noise"
            )
        increment = self.path(sigma_next) - self.path(sigma)
        return (increment / math.sqrt(sigma - sigma_next)).float().to(self.device)

    def path(self, sigma: float) -> Tensor:
        """W(sigma) [B,C,H,W], float64 on the CPU; W(0) is 0."""
        if sigma not in self._path:
            value = self._bisect(sigma)
            while len(self._path) >= 4:  # neighbouring intervals share their ends
                del self._path[next(iter(self._path))]
            self._path[sigma] = value
        return self._path[sigma]

    def _bisect(self, sigma: float) -> Tensor:
        low, high = 0.0, SMALLEST
        at_low = torch.zeros(len(self.seeds), *self.shape, dtype=torch.float64)
        at_high = self._normal(high) * math.sqrt(high)
        while sigma > high:
            low, at_low, high = high, at_high, 2 * high
            at_high = at_low + self._normal(high) * math.sqrt(high - low)
        for _ in range(DEPTH):
            middle = (low + high) / 2
            at_middle = torch.lerp(at_low, at_high, 0.5)
            at_middle = at_middle + self._normal(middle) * (math.sqrt(high - low) / 2)
            if sigma < middle:
                high, at_high = middle, at_middle
            else:
                low, at_low = middle, at_middle
        return torch.lerp(at_low, at_high, (sigma - low) / (high - low))

    def _normal(self, point: float) -> Tensor:
        """Standard normal noise [B,C,H,W] that belongs to each image and this point."""
        images = []
        for seed in self.seeds:
            words = f"{seed % 2**64} {point.hex()}".encode()
            key = int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "little")
            generator = torch.Generator().manual_seed(key)
            images.append(torch.randn(1, *self.shape, generator=generator, dtype=torch.float32))
        return torch.cat(images).double()


MakesNoise = Callable[[tuple[int, ...], tuple[int, ...], torch.device | str], Any]
NOISES: Mapping[str, type[SeededNoise]] = {"independent": SeededNoise, "brownian": BrownianNoise}
ABOUT = {  # a line of each, for lists
    "independent": "fresh in each step, from the picture's seed; delta=N: from one so much larger",
    "brownian": "along one path for each seed, whatever the number of steps",
}


def noise_named(name: str) -> MakesNoise:
    """The Noise of this name, or of a user's file ("mine.py:Mine,scale=2"), by what makes it.

    "independent:delta=31337": the loop's draws are those of seeds that are so much larger.
    A file's is called `noise`, or like the file, if no name is written: what takes (seeds, shape,
    device) and returns a Noise with `start()`. So does what an installed package adds. Raises
    InputError, with near names, for another.
    """
    written = parse(name)
    if written.file is None and written.name not in NOISES:
        extension = find("noise", written.name)
        if extension is None:
            raise unknown("noise", name, (*NOISES, *names("noise")))
        path, factory = extension.file(), extension.load()
    elif written.file is None:
        if not written.options:
            return NOISES[written.name]
        if written.name != "independent" or written.options.keys() != {"delta"}:
            raise InputError(f"of noise there is independent:delta=N and no other option: {name!r}")
        delta = written.options["delta"]
        if type(delta) is not int:
            raise InputError(f"delta is a whole number, not {delta}")
        return partial(SeededNoise, delta=delta)
    else:
        path = Path(written.file)
        wanted = (written.name,) if written.name else ("noise", path.stem)
        factory = load_object(path, wanted, "noise")
    options = keywords(written.options, factory, f"the noise of {path.name}", skip=3)

    def make(seeds: tuple[int, ...], shape: tuple[int, ...], device: torch.device | str) -> Any:
        try:
            noise = factory(seeds, shape, device, **options)
        except Exception as error:
            raise blame(error, path, "noise") from error
        if not callable(noise) or not callable(getattr(noise, "start", None)):
            raise InputError(f"the noise of {path.name} has no start() or cannot be called")
        return noise

    return make
