"""A sweep whose processes are killed at random: is every picture there, once, and whole?

    python -m scripts.sweep_kills --kills 20
    python -m scripts.sweep_kills --ray                # two nodes: a worker is killed, then a node

Three processes share a folder. At random moments one of them is killed (SIGKILL) and another one
started in its place. At the end those that are left finish the work. Counted are the pictures that
are not there (lost), the cells with more than one picture or line (doubled), and the files that are
no whole picture of the settings that the plan asks for (torn).
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click

from sdcore.cli import main as sdcore
from sdcore.cli.sweep_plan import read_plan
from sdcore.errors import InputError
from sdcore.images import read_settings

PLAN = """
model: {model}
device: cpu
prompts: [a red house at sunset, a blue boat on the sea, a green tree]
seed: 0-{last}
matrix:
  scheduler: [euler, dpmpp_2m]
  steps: [2, 3]
"""


def started(plan: Path, out: Path, *more: str) -> int:
    """The process of one more worker, forked so that nothing need be imported again."""
    child = os.fork()
    if child:
        return child
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(null, number)
        sdcore(["sweep", str(plan), str(out), *more])
    except SystemExit as ended:
        os._exit(ended.code if isinstance(ended.code, int) else 1)
    finally:
        os._exit(99)


def killed(
    plan: Path, out: Path, kills: int, processes: int = 3, seed: int = 0, longest: float = 1.0
) -> int:
    """Run it so, with a new picture or more between two kills, and up to `longest` seconds.

    How many were killed while they worked.
    """
    chance, hit, drawn = random.Random(seed), 0, 0
    most = len(read_plan(str(plan)).pictures)
    working = [started(plan, out) for _ in range(processes)]
    for _ in range(kills):
        until = time.monotonic() + 60
        while (now := drawn_in(out)) <= drawn < most and time.monotonic() < until:
            time.sleep(0.01)
        drawn = now
        time.sleep(chance.uniform(0.0, longest))
        victim = working.pop(chance.randrange(len(working)))
        os.kill(victim, signal.SIGKILL)
        _, status = os.waitpid(victim, 0)
        hit += os.WIFSIGNALED(status)
        working.append(started(plan, out))
    for each in working:
        os.waitpid(each, 0)
    return hit


def drawn_in(out: Path) -> int:
    """How many pictures lie below a folder in which others come and go."""
    return sum(name.endswith(".png") for _, _, names in os.walk(out) for name in names)


def counted(plan: Path, out: Path) -> dict[str, Any]:
    """What is in the folder beside what the plan asks for."""
    pictures = {each.path: each for each in read_plan(str(plan)).pictures}
    files = [each for each in out.rglob("*.png") if ".sweep" not in each.parts]
    names = [str(each.relative_to(out)) for each in files]
    ids = Counter(name.removesuffix(".png").rpartition("-")[2] for name in names)
    lines = Counter(
        json.loads(line)["id"]
        for path in (out / ".sweep").glob("manifest.*")
        for line in path.read_text().splitlines()
        if line.endswith("}")
    )
    torn = 0
    for path, name in zip(files, names, strict=True):
        try:
            there = read_settings(path)
            cell = pictures[name].cell
            said = (there.prompt, there.seed, there.scheduler, there.steps)
            options = cell.options
            torn += said != (cell.prompt, cell.seed, options["scheduler"], options["steps"])
        except (InputError, KeyError):
            torn += 1
    left = [each for each in out.iterdir() if each.name.startswith(".sdcore-")]
    doubled = {name for name, n in (*ids.items(), *lines.items()) if n > 1}
    return {
        "pictures": len(pictures),
        "lost": len(pictures.keys() - set(names)),
        "doubled": len(doubled),
        "torn": torn,
        "left behind": len(left) + len(list((out / ".sweep" / "claims").iterdir())),
        "processes that drew": len(list((out / ".sweep").glob("manifest.*"))),
    }


def on_ray(plan: Path, out: Path) -> str:
    """Two nodes of two CPUs each: a worker is killed, and then a node. What happened."""
    import ray
    from ray.cluster_utils import Cluster

    # Ray kills workers where the machine's memory is nearly full, whoever else has taken it.
    os.environ["RAY_memory_monitor_refresh_ms"] = "0"  # noqa: SIM112
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    node = cluster.add_node(num_cpus=1, num_gpus=0)
    command = [sys.executable, "-m", "sdcore", "sweep", str(plan), str(out)]
    child = subprocess.Popen([*command, "--ray", cluster.address], stdout=subprocess.DEVNULL)
    happened = []
    try:
        for what, when in (("worker", 0.2), ("node", 0.5)):
            wait_for(out, when * len(read_plan(str(plan)).pictures), child)
            if what == "worker":
                victim = drawer()
                os.kill(victim, signal.SIGKILL)
            else:
                cluster.remove_node(node, allow_graceful=False)
            happened.append(f"a {what} was killed with {len(list(out.glob('*.png')))} drawn")
        child.wait()
    finally:
        child.kill()
        ray.shutdown()
        cluster.shutdown()
    return ", ".join(happened)


def wait_for(out: Path, pictures: float, child: subprocess.Popen[bytes]) -> None:
    """Until so many are drawn."""
    while len(list(out.glob("*.png"))) < pictures:
        time.sleep(0.1)
        if child.poll() is not None:
            raise SystemExit("the sweep ended too early")


def drawer() -> int:
    """The process of a Ray worker that draws."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::Drawer"):
                return int(path.parent.name)
        except OSError:
            continue
    raise SystemExit("no worker draws")


@click.command()
@click.option("--model", default="picturebook", show_default=True)
@click.option("--seeds", default=10, show_default=True, help="12 pictures each.")
@click.option("--kills", default=20, show_default=True)
@click.option("--ray", is_flag=True, help="On two nodes of Ray instead.")
def main(model: str, seeds: int, kills: int, ray: bool) -> None:
    """Print what was lost and doubled."""
    with tempfile.TemporaryDirectory() as place:
        plan, out = Path(place) / "plan.yaml", Path(place) / "out"
        plan.write_text(PLAN.format(model=model, last=seeds - 1))
        begun = time.perf_counter()
        if ray:
            out.mkdir()
            what = on_ray(plan, out)
        else:
            what = f"{killed(plan, out, kills)} of {kills} kills hit a process at work"
        facts = counted(plan, out)
        click.echo(f"{what}; {time.perf_counter() - begun:.0f} s")
        click.echo(", ".join(f"{name}: {value}" for name, value in facts.items()))
    sys.exit(any(facts[name] for name in ("lost", "doubled", "torn")))


if __name__ == "__main__":
    main()
