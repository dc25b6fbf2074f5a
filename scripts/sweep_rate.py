"""Pictures a second of a sweep with 1 and 2 workers, as plain processes and as Ray's.

    python -m scripts.sweep_rate                       # --ray as well, where Ray is installed

From the first picture of each sweep to its last, so that starting up is left out.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import click

PLAN = """
model: {model}
device: cpu
prompt: a red house at sunset
seed: 0-{last}
scheduler: euler
steps: {steps}
"""


def rate(plan: Path, out: Path, workers: int, ray: bool) -> float:
    """Pictures a second."""
    command = [sys.executable, "-m", "sdcore", "sweep", str(plan), str(out)]
    more = ["--ray", "local", "--workers", str(workers)] if ray else []
    count = 1 if ray else workers
    running = [
        subprocess.Popen([*command, *more], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(count)
    ]
    if any(each.wait() for each in running):
        raise SystemExit("a sweep failed")
    times = sorted(path.stat().st_mtime for path in out.glob("*.png"))
    return (len(times) - 1) / (times[-1] - times[0])


@click.command()
@click.option("--model", default="picturebook", show_default=True)
@click.option("--pictures", default=40, show_default=True)
@click.option("--steps", default=10, show_default=True)
@click.option("--ray", is_flag=True)
def main(model: str, pictures: int, steps: int, ray: bool) -> None:
    """Print the rates."""
    with tempfile.TemporaryDirectory() as place:
        plan = Path(place) / "plan.yaml"
        plan.write_text(PLAN.format(model=model, last=pictures - 1, steps=steps))
        for kind in ("plain", "Ray") if ray else ("plain",):
            for workers in (1, 2):
                found = rate(plan, Path(place) / f"{kind}{workers}", workers, kind == "Ray")
                click.echo(f"{kind}, {workers} worker{'s' * (workers > 1)}: {found:.2f} pictures/s")


if __name__ == "__main__":
    main()
