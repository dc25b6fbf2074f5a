"""`sdcore check`: every law finds the solver that breaks it, and the documented example holds."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch

from sdcore.cli import main
from sdcore.lab import check
from sdcore.lab.check import CLASSIC, settings
from sdcore.lab.laws import LAWS, exact_at_a_point, exact_for_constant_eps
from sdcore.lab.setting import Setting
from sdcore.sampling import Prediction
from sdcore.schedulers import resolve

GUIDE = Path(__file__).parents[2] / "docs" / "writing-a-solver.md"
FEW = list(settings((1, 2, 5), ("karras",)))


def euler_with(change):
    """Euler's step, with one thing wrong: change(x, interval, prediction, x_next) -> x_next."""

    def solver(denoise, x, interval, memory, draw):
        prediction = denoise(x, interval.sigma)
        x_next = prediction.x0 + interval.sigma_next * prediction.eps
        return change(x, interval, prediction, x_next), prediction, ()

    return solver


seen = []


def counts_itself(x, interval, prediction, x_next):
    seen.append(None)
    return x_next + 1e-6 * len(seen)


def changes_x(x, interval, prediction, x_next):
    x.add_(1e-6)
    return x_next


def changes_the_answer(x, interval, prediction, x_next):
    prediction.x0.mul_(1.001)
    return x_next


def never_asks(denoise, x, interval, memory, draw):
    return x, Prediction(x, x), ()


def predicts_elsewhere(denoise, x, interval, memory, draw):
    denoise(x, interval.sigma)
    prediction = denoise(x, interval.sigma / 2)
    return prediction.x0 + interval.sigma_next * prediction.eps, prediction, ()


def remembers_a_list(denoise, x, interval, memory, draw):
    prediction = denoise(x, interval.sigma)
    return prediction.x0 + interval.sigma_next * prediction.eps, prediction, [prediction.x0]


def remembers_in_itself(denoise, x, interval, memory, draw):
    """Adams-Bashforth whose history is an attribute, as in the references."""
    prediction = denoise(x, interval.sigma)
    if interval.index == 0:
        remembers_in_itself.last = None
    last, remembers_in_itself.last = remembers_in_itself.last, prediction.eps
    slope = prediction.eps if last is None else 1.5 * prediction.eps - 0.5 * last
    return x + (interval.sigma_next - interval.sigma) * slope, prediction, ()


def own_noise(x, interval, prediction, x_next):
    return x_next + 1e-3 * torch.randn(x.shape)


def takes_float32(x, interval, prediction, x_next):
    return x_next.float()


def divides_by_zero(x, interval, prediction, x_next):
    return x_next / 0.0


def looks_around(x, interval, prediction, x_next):
    return x_next - 1e-3 * x_next.mean()


def detaches(x, interval, prediction, x_next):
    return x_next.detach()


def stops_half_the_gradient(x, interval, prediction, x_next):
    return prediction.x0.detach() + interval.sigma_next * prediction.eps


def reads_the_raw_output(denoise, x, interval, memory, draw):
    prediction = denoise(x, interval.sigma)
    raw = getattr(prediction.branches, "raw", {}).get("cond", prediction.eps)
    return prediction.x0 + interval.sigma_next * raw, prediction, ()


def asks_at_zero(denoise, x, interval, memory, draw):
    """Heun without its exception at sigma 0."""
    here = denoise(x, interval.sigma)
    there = denoise(here.x0 + interval.sigma_next * here.eps, interval.sigma_next)
    slope = (here.eps + there.eps) / 2
    return x + (interval.sigma_next - interval.sigma) * slope, here, ()


BROKEN = [
    ("finite; shape, dtype and device kept", euler_with(takes_float32), "is torch.float32"),
    ("finite; shape, dtype and device kept", euler_with(divides_by_zero), "not finite in step"),
    ("finite; shape, dtype and device kept", remembers_a_list, "memory is not a tuple"),
    ("the prediction is the model's at (x, sigma)", never_asks, "does not ask"),
    ("the prediction is the model's at (x, sigma)", predicts_elsewhere, "is not the one"),
    ("the prediction is the model's at (x, sigma)", asks_at_zero, "asks at sigma 0;"),
    ("arguments unchanged", euler_with(changes_x), "changes x in place"),
    ("arguments unchanged", euler_with(changes_the_answer), "changes the model's answer"),
    ("the same call twice, the same bits", euler_with(counts_itself), "two answers"),
    ("interleaved loops", remembers_in_itself, "disturb each other"),
    ("resuming from a State", euler_with(counts_itself), "another result"),
    ("random only through draw", euler_with(own_noise), "global generator"),
    ("independent of the batch", euler_with(looks_around), "max abs error"),
    ("gradients flow", euler_with(detaches), "no gradient"),
    ("gradients flow", euler_with(stops_half_the_gradient), "finite difference"),
    ("the same from eps, v and x0", reads_the_raw_output, "v_prediction against epsilon"),
]


@pytest.mark.parametrize(("law", "solver", "message"), BROKEN)
def test_every_law_finds_what_breaks_it(law, solver, message):
    found = [LAWS[law](solver, setting) for setting in FEW]
    assert any(message in line for line in found if line), found


def test_every_law_has_such_a_solver():
    assert {law for law, *_ in BROKEN} == set(LAWS)


def test_a_wrong_weight_is_not_exact_for_constant_eps():
    wrong = euler_with(lambda x, interval, p, x_next: x_next + 1e-9 * p.eps)
    assert "max abs error 2.3e-09" in str(exact_for_constant_eps(wrong, FEW[0]))
    assert "noise is drawn" in str(exact_for_constant_eps(resolve("euler_a").solver, FEW[-2]))


def test_too_much_noise_is_found_in_the_world_of_one_picture():
    def noisy(denoise, x, interval, memory, draw):
        prediction = denoise(x, interval.sigma)
        sigma_next = interval.sigma_next
        x_next = prediction.x0 + 0.6 * sigma_next * prediction.eps
        return x_next + 0.9 * sigma_next * draw(interval.sigma, sigma_next), prediction, ()

    setting = Setting((8.0, 4.0, 2.0, 1.0))
    assert "the std ends at" in str(exact_at_a_point(noisy, setting))
    assert exact_at_a_point(resolve("euler_a").solver, setting) is None


def run(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code, *capsys.readouterr()


@pytest.fixture
def example(tmp_path):
    """The guide's example, as the file of its name."""
    code = re.search(r"```python\n(# (\w+\.py).*?)```", GUIDE.read_text(), re.DOTALL)
    assert code is not None
    path = tmp_path / code[2]
    path.write_text(code[1])
    return path


def test_the_guides_example_is_what_it_claims(example, capsys):
    assert len(example.read_text().splitlines()) <= 20
    status, out, _ = run(["check", str(example), "--order", "2", "--json"], capsys)
    report = json.loads(out)
    assert status == 0
    assert report["holds"]
    assert report["order"] == pytest.approx(2, abs=0.05)
    assert report["nfe"] == [1] * 8
    assert report["draws"] == 0
    assert {finding["law"] for finding in report["findings"]} > set(LAWS)


def test_the_guides_last_example_runs(example, capsys, monkeypatch):
    """Every step of its second order solver is near the exact flow."""
    code = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)[-1]
    monkeypatch.chdir(example.parent)
    torch.manual_seed(0)
    exec(compile(code, "guide", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20
    assert all("tensor" in line for line in lines)


def test_what_a_solver_raises_is_a_finding_with_its_line(tmp_path, capsys, monkeypatch):
    for counts in ("EVERY", "SOME"):
        monkeypatch.setattr(sys.modules["sdcore.lab.check"], counts, (1, 2))
    path = tmp_path / "mine.py"
    path.write_text(
        "import math\n\n"
        "def solver(denoise, x, interval, memory, draw):\n"
        "    p = denoise(x, interval.sigma)\n"
        "    h = math.log(interval.sigma / interval.sigma_next)\n"
        "    return p.x0 + math.exp(-h) * interval.sigma * p.eps, p, ()\n"
    )
    status, out, _ = run(["check", str(path)], capsys)
    assert status == 1
    first = out.splitlines()[0]
    assert first.startswith("FAILS  finite")
    assert "mine.py, line 5: ZeroDivisionError" in first
    assert "N = 1, start 0" in first
    assert "Traceback" not in out
    assert "1 of 1 laws broken; the others are tried once it runs" in out


def test_a_tableau_that_claims_too_much(tmp_path, capsys, monkeypatch):
    """Its rows and b add up, and it keeps every law of a solver."""
    for counts in ("EVERY", "SOME"):
        monkeypatch.setattr(sys.modules["sdcore.lab.check"], counts, (1, 2))
    path = tmp_path / "slip.tableau"
    path.write_text("Slip\n0 |\n1/2 | 1/2\n3/4 | 0 3/4\n---+---\n3 | 3/9 2/9 4/9\n")
    status, out, _ = run(["check", str(path)], capsys)
    assert status == 1
    failed = [line for line in out.splitlines() if line.startswith("FAILS")]
    assert failed == [
        "FAILS  the order conditions of its tableau: the method claims order 3, and is off by "
        "0.056 in order 2"
    ]


@pytest.mark.parametrize("returned", ["x", "None", "(x, 1)"])
def test_a_solver_that_returns_something_else_is_told(tmp_path, capsys, returned):
    path = tmp_path / "mine.py"
    path.write_text(f"def solver(denoise, x, interval, memory, draw):\n    return {returned}\n")
    status, out, _ = run(["check", str(path), "--json"], capsys)
    report = json.loads(out)
    assert (status, report["holds"], report["nfe"]) == (1, False, [])
    assert not any(finding["holds"] for finding in report["findings"])


def test_nothing_else_is_said_of_a_solver_that_ends_at_no_number(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(
        "def solver(denoise, x, interval, memory, draw):\n"
        "    return x * float('nan'), denoise(x, interval.sigma), ()\n"
    )
    status, out, _ = run(["check", str(path), "--json"], capsys)
    report = json.loads(out, parse_constant=pytest.fail)
    assert (status, [finding["holds"] for finding in report["findings"]]) == (1, [False])
    status, out, told = run(["lab", "order", str(path), "--steps", "2,3", "--json"], capsys)
    assert (status, out) == (2, "")
    assert "mine.py returns an x_next that is not finite" in told


def test_a_claim_that_is_not_reached_fails(monkeypatch):
    for counts in ("EVERY", "SOME"):
        monkeypatch.setattr(sys.modules["sdcore.lab.check"], counts, (1, 2))
    report = check(resolve("euler").solver, claimed=2)
    assert [f.law for f in report.findings if not f.holds] == ["converges"]
    assert "2 claimed" in report.findings[-1].detail


def test_a_solver_with_eta_is_measured_without_and_checked_with(monkeypatch):
    for counts in ("EVERY", "SOME"):
        monkeypatch.setattr(sys.modules["sdcore.lab.check"], counts, (1, 2))
    report = check(resolve("euler_a").solver)
    assert report.holds
    assert report.draws == 7
    laws = {finding.law for finding in report.findings}
    assert {"exact in the world of one picture", "exact for constant eps, eta 0"} <= laws


def test_settings_start_everywhere():
    found = {(s.name, len(s.sigmas) - 1, s.start) for s in settings((1, 9), CLASSIC, True)}
    assert {("karras", 9, 0), ("karras", 9, 3), ("karras", 9, 8), ("leading", 1, 0)} <= found


@pytest.mark.parametrize("arguments", [["nowhere.py"], ["eulr"]])
def test_what_cannot_be_checked_is_one_line(arguments, capsys):
    status, out, err = run(["check", *arguments], capsys)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
