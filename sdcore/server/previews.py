"""Pictures of a run that is not done: what the network believes, decoded."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from sdcore.run import Run
from sdcore.sampling import Step
from sdcore.server.jobs import Job


@dataclass(frozen=True)
class Previews:
    """Tells a job `count` times, evenly over its steps, of the x0 estimate: "preview" (index,
    picture, base64 of a PNG). Decoding it takes the VAE as long as a picture does."""

    count: int

    def __call__(self, job: Job, run: Run, step: Step, rows: slice) -> None:
        first = run.start.index
        done, steps = step.index + 1 - first, step.count - first
        shown = [round((n + 1) * steps / (self.count + 1)) for n in range(self.count)]
        for index, at in enumerate(shown):
            if at == done and done < steps:
                picture = run.pictures(step.prediction.x0)[rows][0]
                job.tell("preview", index=index, picture=picture, base64=_png(picture))


def _png(picture: object) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")  # type: ignore[attr-defined]
    return base64.b64encode(buffer.getvalue()).decode("ascii")
