"""What installed packages add by entry points: of a small distribution that lies on sys.path."""

import json
import re
import sys

import pytest
import torch

from sdcore.brownian import noise_named
from sdcore.cli import main
from sdcore.errors import InputError
from sdcore.experiments.sweep.folder import Folder
from sdcore.extensions import _all, extensions, find
from sdcore.guidance import resolve as resolve_guidance
from sdcore.guidance import write
from sdcore.images import read_settings
from sdcore.interop.installed import installed, names_an_extension
from sdcore.lab.worlds import Mixture
from sdcore.noise import SeededNoise
from sdcore.sampling import sample
from sdcore.schedulers import resolve
from sdcore.server import asked
from sdcore.server.a1111.samplers import known_sampler
from sdcore.server.refusals import Missing, Refused
from sdcore.trust import check_inherited
from tests.cli.shell import pixels

CODE = '''
from dataclasses import dataclass

import sdcore.noise
from sdcore.guidance import CFG
from sdcore.schedulers import Entry

IMPORTED = True


def halfway(denoise, x, interval, memory, draw, *, strength=1.0):
    """Euler's step, with a strength."""
    prediction = denoise(x, interval.sigma)
    return x + strength * (interval.sigma_next - interval.sigma) * prediction.eps, prediction, ()


def broken(denoise, x, interval, memory, draw):
    return denoise(x, interval.sigma).nothing


entry = Entry("whatever", halfway, order=1, nfe=1, paper="none", class_name="DDIMScheduler")


def halves(noise_schedule, steps, *, ratio=2.0):
    """Each half of the one before."""
    return [noise_schedule.sigmas[-1] / ratio**i for i in range(steps)]


@dataclass(frozen=True)
class Twice:
    """CFG at twice the scale."""

    scale: float = 7.5

    def branches(self, sigma):
        return CFG(2 * self.scale).branches(sigma)

    def combine(self, predictions, x, sigma):
        return CFG(2 * self.scale).combine(predictions, x, sigma)


def later(seeds, shape, device):
    return sdcore.noise.SeededNoise(seeds, shape, device, spent=5)
'''
POINTS = """
[sdcore.solvers]
halfway = addons:halfway
as_an_entry = addons:entry
wrong-step = addons:broken
euler = addons:halfway
Heun Karras = addons:halfway
gone = addons_that_are_gone:solver
number = addons:IMPORTED

[sdcore.spacings]
halves = addons:halves

[sdcore.guidances]
twice = addons:Twice
seven = addons:IMPORTED

[sdcore.noises]
later = addons:later
"""


def distribution(folder, name, points, code=None, version="1.2"):
    info = folder / f"{name}-1.2.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(points)
    if code is not None:
        (folder / f"{name}.py").write_text(code)


@pytest.fixture
def addons(tmp_path, monkeypatch):
    distribution(tmp_path, "addons", POINTS, CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("addons", None)


def test_nothing_is_imported_before_it_is_asked_for(addons):
    assert [each.name for each in extensions("spacing")] == ["halves"]
    assert resolve("euler").name == "euler"
    assert "addons" not in sys.modules
    assert resolve("halfway").name == "halfway"
    assert "addons" in sys.modules


def test_a_solver_with_its_options(addons):
    x = 10 * torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sigmas = resolve("euler", "karras").plan(6).sigmas

    def end(name):
        *_, last = sample(Mixture(), x, sigmas, resolve(name).solver)
        return last.x_next

    torch.testing.assert_close(end("Halfway"), end("euler"))
    half = resolve("halfway:strength=0.5")
    assert half.written == "halfway:strength=0.5"
    assert resolve(half.written).written == half.written
    assert not torch.equal(end("halfway:strength=0.5"), end("euler"))
    with pytest.raises(InputError, match="no option 'strenth'"):
        resolve("halfway:strenth=1")


def test_an_entry_says_more_of_its_solver(addons):
    scheduler = resolve("as_an_entry")
    assert (scheduler.name, scheduler.entry.order) == ("as_an_entry", 1)
    assert scheduler.plan(4).timesteps == resolve("ddim").plan(4).timesteps


def test_a_spacing_a_guidance_and_a_noise(addons):
    plan = resolve("euler", "halves:ratio=3").plan(3)
    assert plan.sigmas[1] == pytest.approx(plan.sigmas[0] / 3)
    assert resolve("euler", "halves:ratio=3").spacing.written == "halves:ratio=3"
    guidance = resolve_guidance("twice:scale=3")
    assert guidance.branches(1.0) == ("uncond", "cond")
    assert write(guidance) == "twice:scale=3"
    noise = noise_named("later")((1,), (4, 2, 2), "cpu")
    assert torch.equal(noise.start(), SeededNoise((1,), (4, 2, 2), spent=5).start())


def test_mistakes_in_it_are_one_line(addons):
    x = torch.ones(1, 4, 8, 8)
    for call, says in (
        (lambda: resolve("gone"), "gone of addons 1.2 does not import: ModuleNotFoundError"),
        (lambda: resolve("number"), "is no step function"),
        (
            lambda: next(sample(Mixture(), x, (1.0, 0.5), resolve("wrong_step").solver)),
            "addons.py, line",
        ),
        (lambda: resolve("euler", "halves:ration=1"), "did you mean ratio"),
        (lambda: resolve_guidance("twice:scal=1"), "did you mean scale"),
        (lambda: resolve_guidance("seven"), "the guidance seven of addons 1.2 is no function"),
        (lambda: resolve("halfwy"), "did you mean halfway"),
        (lambda: resolve("euler", "nowhere"), "spacing"),
        (lambda: noise_named("nowhere"), "noise"),
    ):
        with pytest.raises(InputError, match=says) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_our_names_are_ours(addons):
    assert resolve("euler").written == "euler"
    assert "strength" not in str(resolve("euler").solver)
    hidden = {each.name: each.problem for each in installed("solver")}
    for name in ("euler", "Heun Karras"):
        assert "sdcore has its own" in hidden[name]
    assert not hidden["halfway"]


def test_two_packages_of_one_name(addons, monkeypatch):
    distribution(addons / "more", "others", "[sdcore.solvers]\nhalfway = addons:broken\n")
    monkeypatch.syspath_prepend(str(addons / "more"))
    with pytest.raises(InputError, match=r"in addons 1\.2 and in others 1\.2"):
        find("solver", "halfway")


def test_a_strangers_list_or_picture_runs_none_of_it(addons):
    for text in ("halfway", "Half way:strength=2", "cfg+twice", "as_an_entry karras"):
        named = names_an_extension(text)
        assert named is (text != "as_an_entry karras")  # which no name is
    check_inherited({"scheduler": "euler", "spacing": "karras"})
    for field in ("scheduler", "hires_scheduler"):
        with pytest.raises(InputError, match="what a package has installed"):
            check_inherited({field: "halfway:strength=2"})
    with pytest.raises(Refused, match="not run over HTTP"):
        asked._written("noise", "later")
    with pytest.raises(Missing):
        known_sampler("Halfway")
    assert "addons" not in sys.modules


@pytest.fixture
def listed(capfd):
    """A command's (stdout, lines on stderr)."""

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main([*words])
        assert ended.value.code == 0
        out, err = capfd.readouterr()
        return out, err.splitlines()

    return run


def test_the_lists_say_where_it_comes_from(addons, listed):
    out, problems = listed("schedulers")
    assert re.search(r"halfway +solver of addons 1.2 \(addons:halfway\)  Euler's step, with", out)
    assert re.search(r"later +noise of addons", out)
    assert re.search(r"later +of addons 1.2 \(addons:later\)", listed("schedulers", "--noises")[0])
    noises = json.loads(listed("schedulers", "--noises", "--json")[0])
    assert [each["name"] for each in noises] == ["independent", "brownian", "later"]
    assert noises[-1]["from"] == "addons 1.2 (addons:later)"
    assert len(problems) == 4  # of two names of ours, what does not import, what is no function
    assert "does not import" in " ".join(problems)
    rows = json.loads(listed("schedulers", "--json")[0])
    added = next(row for row in rows if row["name"] == "as_an_entry")
    assert (added["order"], added["from"]) == (1, "addons 1.2 (addons:entry)")
    assert all(row.keys() == rows[0].keys() for row in rows)
    assert "halves             of addons 1.2 (addons:halves)  Each" in listed(
        "schedulers", "--spacings"
    )[0]  # fmt: skip
    assert "halves" in json.loads(listed("schedulers", "--spacings", "--json")[0])
    assert "addons:Twice" in listed("guidances")[0]
    rows, problems = listed("guidances", "--json")
    assert json.loads(rows)[-1]["name"] == "twice"
    assert problems == ["sdcore: the guidance seven of addons 1.2 is no function"]


def test_a_picture_names_the_packages_that_drew_it(addons, shell, monkeypatch):
    """And `rerun` says which of them is another one now, or gone; a sweep takes no other one."""
    plain = shell.sample("red", "--scheduler", "euler")
    assert read_settings(plain.paths[0]).packages == ()
    mine = ("--scheduler", "halfway", "--spacing", "halves", "--guidance", "cfg+twice")
    (drawn,) = shell.sample("red", *mine, "--noise", "later").paths
    settings = read_settings(drawn)
    assert settings.packages == ("addons 1.2",)
    again = shell("rerun", drawn, *mine, "--noise", "later")
    assert "addons" not in again.err
    assert pixels(again.paths[0]) == pixels(drawn)

    distribution(addons, "addons", POINTS, version="1.3")
    _all.cache_clear()
    later = shell("rerun", drawn, *mine, "--noise", "later")
    assert "the package addons was 1.2 and is 1.3" in later.err
    assert read_settings(later.paths[0]).packages == ("addons 1.3",)
    folder = Folder(addons / "sweep", "me")
    folder.open("flat", [])
    folder.check_model(settings)
    with pytest.raises(InputError, match=r"another version of addons: 1\.2 then, 1\.3 now"):
        folder.check_model(read_settings(later.paths[0]))

    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(addons)])
    gone = shell("rerun", drawn)
    assert gone.status == 2
    assert f"{drawn} was drawn with the package addons 1.2, which is not installed" in gone.err
