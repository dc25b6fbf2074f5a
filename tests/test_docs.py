"""Every example of the documentation runs as it stands, and every command in it is one."""

import doctest
import importlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
import torch
from PIL import Image

import sdcore
from scripts.tutorial import chapters
from sdcore.cli.commands import cli
from sdcore.cli.defaults import defaults_of
from sdcore.config_file import open_config
from sdcore.filters import open_filters
from sdcore.guidance import CFG, GUIDANCES, accepted
from sdcore.guidance import resolve as resolve_guidance
from sdcore.images import read_settings
from sdcore.lab import Gaussian, Mixture, denoiser
from sdcore.schedulers import resolve
from sdcore.schedulers.tableau import TABLEAUX
from sdcore.schedulers.tableau import parse as parse_tableau
from tests.cli.shell import Shell

ROOT = Path(__file__).parents[1]
PAGES = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8")
         for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))}  # fmt: skip
TRIED_BY = {  # with what it is about
    "docs/steering.md": "tests/test_steering.py",
    "docs/server.md": "tests/server/test_clients.py",
    "docs/notebooks.md": "tests/test_notebook.py",
    "docs/with-other-tools.md": "tests/interop/test_diffusers.py",
}
# The map shows signatures in Python's colours, and no example.
RUN = {
    "README.md",
    "docs/experiments.md",
    "docs/filters.md",
    "docs/starting.md",
    "docs/writing-a-guidance.md",
    "docs/writing-a-solver.md",
}


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGES[page], re.S)


def test_every_page_with_an_example_is_tried_here() -> None:
    there = {page for page in PAGES if examples(page)} - {"docs/architecture.md"}
    tutorial = {page.relative_to(ROOT).as_posix() for page in chapters()}
    assert there == RUN | TRIED_BY.keys() | tutorial
    for page, test in TRIED_BY.items():
        assert Path(page).name in (ROOT / test).read_text(encoding="utf-8")


def test_the_readme(tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loop, solver = examples("README.md")
    load = sdcore.load
    monkeypatch.setattr(sdcore, "load", lambda: load(tiny_path, device="cpu"), raising=False)
    exec(compile(loop, "README.md", "exec"), {})
    assert Path("house.png").is_file()
    Path("mine.py").write_text(solver)
    run = load(tiny_path, device="cpu").prepare("red", scheduler="mine.py", steps=2)
    assert len(list(run)) == 2


def test_starting_elsewhere(
    tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    two_passes, example = examples("docs/starting.md")
    sd = sdcore.load(tiny_path, device="cpu")
    side = {"width": 128, "height": 128}  # as the bundled model draws
    model = SimpleNamespace(prepare=lambda *words, **how: sd.prepare(*words, **{**side, **how}))
    names: dict = {"sd": model, "State": sdcore.State, "replace": replace}
    with torch.inference_mode():
        exec(two_passes, names)
        *_, last = sd.prepare("a red boat", seeds=[1], hires=2, **side)
    assert torch.equal(names["step"].x_next, last.x_next)

    run = sd.prepare("red", steps=6)
    names = {"run": run, "replace": replace, "CFG": CFG, "State": sdcore.State}
    names |= {name: resolve(name).solver for name in ("euler", "heun")}
    with torch.inference_mode():
        exec(example, names)
    assert [len(branch) for branch in names["branches"]] == [2, 2]
    assert torch.equal(list(names["again"])[-1].x_next, names["steps"][-1].x_next)


def test_experiments(tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sd = sdcore.load(tiny_path, device="cpu")
    names: dict = {"sd": sd, "run": sd.prepare("red", steps=4)}
    with torch.inference_mode():
        for example in examples("docs/experiments.md"):
            exec(example, names)
    assert len(names["bends"]) == 4


def test_filters(
    tiny_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    check, drawing = examples("docs/filters.md")
    Path("mine.py").write_text(check)
    (filter,) = open_filters(("mine.py:check,least=256",))
    assert filter([Image.new("RGB", (8, 8), "white")])[1] == [True]
    load = sdcore.load
    monkeypatch.setattr(sdcore, "load", lambda: load(tiny_path, device="cpu"), raising=False)
    names: dict = {}
    exec(check, names)
    exec(drawing, names)
    assert capsys.readouterr().out.count("() <PIL.Image.Image image mode=RGB") == 2


def test_the_file_of_defaults(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGES["docs/config.md"], re.S)
    (tmp_path / "a.yaml").write_text(text)
    file = open_config(tmp_path / "a.yaml", "file")
    found = defaults_of("sample", cli.commands, [file], ["draft"])
    assert found["steps"].raw == ("8",)
    assert found["width"].raw == found["height"].raw == ("128",)
    assert defaults_of("serve", cli.commands, [file])["port"].raw == "8000"


def test_the_guide_to_solvers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its file is a solver, and its notebook prints the errors of one, which are small."""
    monkeypatch.chdir(tmp_path)
    solver, spacing, notebook = examples("docs/writing-a-solver.md")
    Path("ab2.py").write_text(solver)
    Path("halves.py").write_text(spacing)
    sigmas = resolve("euler", "halves.py:ratio=3").plan(5).sigmas
    assert sigmas[1] == pytest.approx(sigmas[0] / 3)
    torch.manual_seed(0)
    exec(notebook, {})
    errors = [float(error) for error in re.findall(r"tensor\(([^,]+)", capsys.readouterr().out)]
    assert len(errors) == 20
    assert max(errors) < 0.05
    table = next(
        block for block in PAGES["docs/writing-a-solver.md"].split("```") if "-+-" in block
    )
    assert parse_tableau(table, "mine.tableau") == TABLEAUX["bosh3"]


def test_the_guide_to_guidances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for example in examples("docs/writing-a-guidance.md"):
        if file := re.match(r"# (\w+\.py):", example):
            Path(file[1]).write_text(example)
        exec(example, names)
    x = torch.linspace(-3, 3, 8, dtype=torch.float64).reshape(2, 1, 2, 2)
    for guidance in (names["Rescaled"](), names["mine"], names["windowed"], names["both"]):
        found = denoiser(Gaussian(0.5, 0.4), Mixture(), accepted(guidance), batch=2)(x, 1.0)
        assert (found.x0 + found.eps - x).abs().max() <= 1e-12
    assert names["Towards"].sources["other"].text == "a painting"
    written = re.findall(r"^\| `\+?(\w+:[^`]*)` \|", PAGES["docs/writing-a-guidance.md"], re.M)
    assert {resolve_guidance(text) and text.split(":")[0] for text in written} == set(GUIDANCES)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every `sdcore ...` in the pages, and its arguments."""
    for page, text in PAGES.items():
        blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.S | re.M)
        fences = [block for language, block in blocks if not language]
        for line in re.findall(r"^sdcore .*", "\n".join(fences), re.M):
            yield page, shlex.split(line, comments=True)[1:]


def test_every_command_that_is_shown_can_be_typed() -> None:
    shown = list(commands())
    assert len(shown) > 30
    for page, arguments in shown:
        command, names = cli, []
        while isinstance(command, click.Group):
            name, *arguments = arguments
            names.append(name)
            command = command.commands[name]
        parent = cli.make_context("sdcore", names, resilient_parsing=True)
        try:
            command.make_context(names[-1], arguments, parent)
        except click.ClickException as error:
            pytest.fail(f"{page}: sdcore {' '.join(names)} {arguments}: {error.format_message()}")


def test_the_readme_reruns_a_picture_that_it_has_drawn(shell: Shell) -> None:
    lines = [arguments for page, arguments in commands() if page == "README.md"]
    drawn = lines[0]
    assert drawn[0] == "sample"
    picture = shell(*drawn, "--model", shell.model, "--steps", 2).paths[0]
    reruns = [arguments for arguments in lines if arguments[:2] == ["rerun", str(picture)]]
    assert len(reruns) >= 2
    for arguments in reruns:
        again = shell(*arguments, "--out", "again.png")
        assert again.status == 0
        assert read_settings(again.paths[0]).seed == read_settings(picture).seed


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_are_there(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGES[page]):
        assert ((ROOT / page).parent / target).exists(), target


def test_the_list_of_prompts_is_read(tmp_path: Path) -> None:
    from sdcore.cli.prompt_lists import from_file

    (text,) = re.findall(r"```text\n(.*?)```", PAGES["docs/prompts.md"], re.S)
    (tmp_path / "list.txt").write_text(text)
    asked = from_file(str(tmp_path / "list.txt"))
    assert [each.prompt.split()[1] for each in asked] == ["red", "blue", "green", "yellow"]
    assert [each.options.get("seed") for each in asked] == [None, ("42",), ("7",), ("7",)]


EXAMPLES = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for path in (ROOT / "sdcore").rglob("*.py")
    if re.search(r"^\s+>>> ", path.read_text(encoding="utf-8"), re.M)
)


@pytest.mark.parametrize("module", EXAMPLES)
def test_the_examples_in_docstrings(module: str) -> None:
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted
    assert not found.failed
