"""The measurement of orders: that it tells errors apart, and its command."""

import json
import math
from itertools import pairwise

import pytest
import torch

from sdcore.cli import main
from sdcore.errors import InputError
from sdcore.lab import Gaussian, Window, measure, moments
from sdcore.lab.order import measure_scheduler, slope
from sdcore.sampling import sample
from sdcore.schedulers import TABLE, resolve

COUNTS = (10, 20, 40)


def test_slope():
    assert slope((10, 20, 40), (1.0, 0.25, 0.0625)) == pytest.approx(2)
    assert slope((10, 20, 30), (1.0, 1.0, (2 / 3) ** 3)) == pytest.approx(3)
    assert slope((10, 20, 40), (1e-3, 1e-13, 1e-15)) == math.inf
    assert math.isnan(slope((10, 20), (1.0, math.nan)))


def test_a_window_is_uneven_and_exact_at_its_ends():
    sigmas = Window(10.0, 0.1)(7)
    assert (len(sigmas), sigmas[0], sigmas[-1]) == (8, 10.0, 0.1)
    steps = [a - b for a, b in pairwise(sigmas)]
    ratios = [a / b for a, b in pairwise(sigmas)]
    assert steps == sorted(steps, reverse=True)
    assert ratios == sorted(ratios)


def test_the_last_interval_hides_the_order_and_is_told_apart():
    """On Karras spacing into 0 the second order methods stop at 1.6e-3, whatever N is."""
    found = measure_scheduler("heun", "karras", counts=(20, 40, 80))
    assert found.order == pytest.approx(2, abs=0.1)
    assert found.last[0] == pytest.approx(1.6e-3, abs=1e-4)
    assert found.last[-1] == pytest.approx(found.last[0], rel=0.02)
    assert found.errors[-1] < found.last[-1]
    assert 0 < max(found.rounding) < 1e-5
    assert measure_scheduler("heun", counts=COUNTS).last == ()


def test_a_solver_that_is_exact_has_infinite_order():
    world = Gaussian(0.3, 0.5)

    def oracle(denoise, x, interval, memory, draw):
        return world.flow(x, interval.sigma, interval.sigma_next), denoise(x, interval.sigma), ()

    assert measure("oracle", oracle, world=world, counts=COUNTS, claimed=9).holds


def test_a_wrong_claim_is_seen():
    assert not measure("euler", resolve("euler").solver, counts=(40, 80), claimed=2).holds
    assert measure("euler", resolve("euler").solver, counts=(40, 80), claimed=1).holds


def test_noise_is_measured_by_its_variance():
    found = measure("euler_a", resolve("euler_a").solver, counts=(80, 160), claimed=1)
    assert (found.how, found.nfe) == ("variance", (80, 160))
    assert found.order == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_moments_are_those_of_many_runs(eta):
    """Against 65,536 values drawn at random."""
    world, solver, sigmas = Gaussian(0.3, 0.5), resolve("euler", eta=eta).solver, Window()(6)
    rng = torch.Generator().manual_seed(5)
    x = 0.3 + math.hypot(0.5, 10) * torch.randn(4, 4, 64, 64, generator=rng, dtype=torch.float64)
    noise = lambda *_: torch.randn(x.shape, generator=rng, dtype=torch.float64)  # noqa: E731
    end = list(sample(world, x, sigmas, solver, noise))[-1].x_next
    found = moments(solver, sigmas, world)
    assert found.variance == pytest.approx(end.var().item(), rel=0.02)
    assert (found.draws, found.nfe) == (6, 6)


def test_draws_of_one_path_are_correlated():
    """Two halves of an interval sum to the whole: variance 1 on a path, 2 without."""

    def halves(denoise, x, interval, memory, draw):
        a, b = interval.sigma, interval.sigma_next
        middle = (a + b) / 2
        noise = (draw(a, middle) + draw(middle, b)) / math.sqrt(2) + draw(a, b)
        return 0 * x + noise, denoise(x, a), ()

    world = Gaussian(0.0, 1.0)
    assert moments(halves, [2.0, 1.0], world, brownian=True).variance == pytest.approx(4)
    assert moments(halves, [2.0, 1.0], world).variance == pytest.approx(2)


def run(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["lab", "order", *arguments])
    return stop.value.code, *capsys.readouterr()


def test_the_command_prints_a_table(capsys, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "def mine(denoise, x, interval, memory, draw):\n"
        "    p = denoise(x, interval.sigma)\n"
        "    return p.x0 + interval.sigma_next * p.eps, p, ()\n"
    )
    several = ["dpmpp_2m", str(path), "heun:variable=s"]
    status, out, _ = run([*several, "--steps", "40,80"], capsys)
    assert status == 0
    head, first, own, optioned = out.splitlines()
    assert optioned.split()[:2] == ["heun:variable=s", "2"]  # each as it was written
    assert head.split()[:5] == ["solver", "claims", "order", "N=40", "N=80"]
    assert first.split()[:2] == ["dpmpp_2m", "2"]
    assert own.split()[:2] == [str(path), "-"]
    assert float(own.split()[2]) == pytest.approx(1, abs=0.05)


def test_the_command_prints_json(capsys):
    status, out, _ = run(["euler", "--spacing", "karras", "--steps", "5,10", "--json"], capsys)
    (row,) = json.loads(out)["solvers"]
    assert status == 0
    assert (row["name"], row["nfe"], row["how"]) == ("euler", [5, 10], "flow")
    assert len(row["errors"]) == len(row["last"]) == len(row["rounding"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eulr"], "did you mean euler"),
        (["--spacing", "karas"], "did you mean karras"),
        (["--steps", "20"], "at least two rising numbers"),
        (["--steps", "20,10"], "at least two rising numbers"),
        (["--steps", "a,b"], "at least two rising numbers"),
        (["--start", "0.1", "--end", "1"], "--start must be above --end"),
        (["--spacing", "karras", "--end", "1"], "leave out --start"),
        (["nowhere.py"], "no solver file"),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys):
    status, out, err = run(arguments, capsys)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_plot_needs_matplotlib(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status, out, err = run(["euler", "--plot", "x.png"], capsys)
    assert (status, out) == (2, "")
    assert "pip install 'sdcore[plot]'" in err


def test_a_plot(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "orders.png"
    status, *_ = run(["euler", "heun", "--steps", "5,10", "--plot", str(path)], capsys)
    assert status == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [path]
    assert run(["euler", "--plot", str(tmp_path / "no" / "x.png")], capsys)[0] == 2
    assert run(["euler", "--plot", str(tmp_path / "x.txt")], capsys)[0] == 2


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
def test_every_scheduler_converges_as_fast_as_it_claims(entry):
    found = measure_scheduler(entry.name, counts=(120, 240), rounding=False)
    assert found.holds, f"{entry.name}: measured {found.order:.2f}, claimed {entry.order}"


def test_a_million_steps_are_refused_at_once():
    with pytest.raises(InputError, match="at most 10000"):
        measure("euler", resolve("euler").solver, counts=(10, 10**7))
