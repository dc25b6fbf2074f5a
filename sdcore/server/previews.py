"""Pictures of a run that is not done: what the network believes, decoded."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdcore.filters import Filter, filtered
from sdcore.run import Run
from sdcore.sampling import Step
from sdcore.server.jobs import Job

if TYPE_CHECKING:
    from PIL.Image import Image


def estimate(run: Run, step: Step, row: int, filters: Sequence[Filter]) -> Image:
    """One picture's x0 as it is believed in this step; as the filters leave it, or black."""
    from PIL import Image as pillow

    picture = run.pictures(step.prediction.x0)[row]
    (shown, _), *_ = filtered([picture], run.settings[row : row + 1], filters)
    return pillow.new("RGB", picture.size) if shown is None else shown


@dataclass(frozen=True)
class Previews:
    """Tells a job `count` times, evenly over its steps, of the x0 estimate: "preview" (index,
    picture, base64 of a PNG). Decoding it takes the VAE as long as a picture does."""

    count: int
    filters: Sequence[Filter] = ()

    def __call__(self, job: Job, run: Run, step: Step, rows: slice) -> None:
        told = next(e.data for e in reversed(job.events) if e.kind == "step")
        done, steps = told["done"], told["total"]
        shown = [round((n + 1) * steps / (self.count + 1)) for n in range(self.count)]
        for index, at in enumerate(shown):
            if at == done and done < steps:
                picture = estimate(run, step, rows.start, self.filters)
                job.tell("preview", index=index, picture=picture, base64=_png(picture))


def _png(picture: Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
