"""How much may be asked for, at once and altogether."""

from __future__ import annotations

from dataclasses import dataclass

MEGA = 1e6


@dataclass(frozen=True)
class Limits:
    """Bounds of a request and of the queue.

    Work is counted in millions of pixels times evaluations of the network (NFE), over all pictures:
    a picture of 512 x 512 in 50 guided steps is 26.
    """

    work: float = 2000.0  # that may wait; a single request may ask for so much as well
    side: int = 2048  # pixels of a picture's width or height
    steps: int = 150
    questions: int = 10_000  # to the network, for one picture
    pictures: int = 16  # of one request
    text: int = 10_000  # letters, of any text of any face
    body: int = 32 << 20  # bytes of a request
    decoded: int = 1 << 24  # pixels of a picture in a request
    jobs: int = 256  # that are remembered after their end
    kept: int = 1 << 29  # bytes of what they hold
    seconds: float = 3600.0  # for which they are remembered
    batch: int = 1  # pictures of different requests that may be drawn at once
