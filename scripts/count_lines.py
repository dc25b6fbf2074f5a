"""Lines to read between noise and latents, of one Euler run with guidance; and of each solver.

    python -m scripts.count_lines

The run is `run` below: noise, a denoiser with classifier-free guidance around a stub, twenty Euler
steps, latents. It is traced: counted is every function of the package that it enters, with its
signature and decorators, the fields of the classes that these belong to, and whatever types,
records and constants they name in turn. Not counted: docstrings, comments, blank lines, imports,
the network, the text, and methods that are not entered. Three columns: declarations (fields, type
aliases, protocols), guards (an `if` that only raises) and the code that computes.

The schedule, laid before, stands beside it, counted in the same way from its rule and its table;
how a name becomes a rule (`resolve`) is in neither.

Then every solver's own function, its signature included, and the rooms that several solvers share.
"""

from __future__ import annotations

import ast
import inspect
import io
import sys
import tokenize
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch

from sdcore.denoiser import Denoiser
from sdcore.guidance import CFG
from sdcore.noise import SeededNoise
from sdcore.process import VariancePreserving
from sdcore.sampling import sample
from sdcore.schedulers import TABLE
from sdcore.schedulers.noise_schedule import NoiseSchedule, make_betas
from sdcore.schedulers.solvers.euler import euler
from sdcore.schedulers.spacing import Plan, Spacing
from sdcore.schedulers.spacing.timesteps import linspace

PACKAGE = Path(__file__).resolve().parent.parent / "sdcore"
SOLVERS = "schedulers/solvers"
# Read once.
SHARED = (
    f"{SOLVERS}/past.py",
    f"{SOLVERS}/integrals.py",
    "schedulers/table_entry.py",
    # All that a Runge-Kutta method takes, whichever: its file, its steps, and their control.
    "schedulers/tableau.py",
    f"{SOLVERS}/runge_kutta.py",
    f"{SOLVERS}/step_control.py",
)


def schedule() -> Plan:
    """Twenty steps of Stable Diffusion's training table."""
    table = NoiseSchedule.from_betas(make_betas("scaled_linear", 0.00085, 0.012, 1000))
    plan = Spacing("linspace", linspace).plan(table, 20)
    plan.timestep(plan.sigmas[0])
    return plan


def run(plan: Plan) -> torch.Tensor:
    """From noise to latents."""
    unet = lambda x, t, context: x * 0.9  # noqa: E731
    told = {name: {"context": torch.zeros(1, 1, 1)} for name in ("uncond", "cond")}
    noise = SeededNoise((0,), (4, 8, 8))
    denoise = Denoiser(unet, VariancePreserving(plan), told, CFG(7.5))
    x = noise.start() * plan.start_scale
    for step in sample(denoise, x, plan.sigmas, euler, noise):
        x = step.x_next
    return x * plan.end_scale


def entered(function: Callable[[], Any]) -> set[CodeType]:
    """The code of every function of the package that a call enters."""
    seen: set[CodeType] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(PACKAGE)):
            seen.add(frame.f_code)

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return seen


def lines_of_code(source: str) -> set[int]:
    """Numbers of the lines that hold code: no comments, no blank lines, no docstrings."""
    skip = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in (*skip, tokenize.ENDMARKER):
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                lines -= set(range(value.lineno, (value.end_lineno or value.lineno) + 1))
    return lines


def span(node: Any) -> set[int]:
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    return set(range(first, (node.end_lineno or first) + 1))


def is_guard(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.body[0], ast.Raise) and not node.orelse


class Count:
    """What is to be read, file by file, from the functions that were entered."""

    def __init__(self, codes: set[CodeType]) -> None:
        self.lines: dict[Path, set[int]] = {}
        self.declared: dict[Path, set[int]] = {}
        self.guards: dict[Path, set[int]] = {}
        self.done: set[tuple[Path, str]] = set()
        for code in codes:
            self.function(Path(code.co_filename), code.co_qualname.split(".<locals>")[0])

    def function(self, path: Path, name: str) -> None:
        """A function or `Class.method`, by its place in the file."""
        owner, _, method = name.rpartition(".")
        nodes = tree(path)[1]
        if owner in nodes:
            self.named(path, owner)
            members = [n for n in nodes[owner].body if getattr(n, "name", "") == method]
        else:
            members = [nodes[name]] if name in nodes else []
        for node in members:
            if (path, name) not in self.done:
                self.done.add((path, name))
                self.take(path, node, declared=False)

    def named(self, path: Path, name: str) -> None:
        """What a counted line names: a constant, a type or a record of the package."""
        nodes, imported = tree(path)[1:]
        if name in imported:
            self.named(*imported[name])
        elif name in nodes and (path, name) not in self.done:
            node = nodes[name]
            if isinstance(node, ast.FunctionDef):
                return  # counted where it is entered
            self.done.add((path, name))
            if isinstance(node, ast.ClassDef) and not is_protocol(node):
                methods = {line for n in node.body if isinstance(n, ast.FunctionDef)
                           for line in span(n)}  # fmt: skip
                self.take(path, node, declared=True, without=methods)
            else:
                self.take(path, node, declared=True)

    def take(
        self,
        path: Path,
        node: Any,
        declared: bool,
        without: frozenset[int] | set[int] = frozenset(),
    ) -> None:
        kept = span(node) - without
        self.lines.setdefault(path, set()).update(kept)
        if declared:
            self.declared.setdefault(path, set()).update(kept)
        for inner in ast.walk(node):
            if getattr(inner, "lineno", 0) in without:
                continue
            if is_guard(inner):
                self.guards.setdefault(path, set()).update(span(inner) & kept)
            if isinstance(inner, ast.Name):
                self.named(path, inner.id)

    def rows(self) -> dict[str, tuple[int, int, int]]:
        """file -> lines that are declarations, guards, the rest."""
        found = {}
        for path, lines in self.lines.items():
            code = lines & tree(path)[0]
            guards = code & self.guards.get(path, set())
            declared = code & self.declared.get(path, set()) - guards
            rest = len(code) - len(guards) - len(declared)
            found[str(path.relative_to(PACKAGE))] = (len(declared), len(guards), rest)
        return dict(sorted(found.items()))


def is_protocol(node: ast.ClassDef) -> bool:
    return any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases)


Imported = dict[str, tuple[Path, str]]


@cache
def tree(path: Path) -> tuple[set[int], dict[str, Any], Imported]:
    """A file's lines of code, its top-level names, and the names of the package that it imports."""
    source = path.read_text()
    nodes: dict[str, Any] = {}
    imported: Imported = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sdcore"):
            for alias in node.names:
                module = sys.modules[str(node.module)]
                thing = getattr(module, alias.name)
                home = sys.modules.get(getattr(thing, "__module__", ""), module)
                home = home if hasattr(home, alias.name) and "sdcore" in home.__name__ else module
                imported[alias.name] = (Path(str(home.__file__)), alias.name)
        for name in names(node):
            nodes[name] = node
    return lines_of_code(source), nodes, imported


def names(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Assign):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {getattr(node, "name", "")} - {""}


def counts() -> tuple[Count, Count]:
    """Of the run, and of the schedule that is laid before it."""
    plan = schedule()
    return Count(entered(lambda: run(plan))), Count(entered(schedule))


def solvers() -> dict[str, int]:
    """file::function -> lines of code, the longest first; one function may be several entries."""
    found = {}
    for entry in TABLE:
        function: Any = getattr(entry.solver, "func", entry.solver)  # a partial's
        name = f"{function.__module__.removeprefix('sdcore.')}::{function.__name__}"
        found[name] = len(lines_of_code(inspect.getsource(function)))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def main() -> None:
    for title, counted in zip(("from noise to latents", "the schedule"), counts(), strict=True):
        print(f"{title:34s}  sum  declared  guards  computing")
        rows = counted.rows()
        total = tuple(map(sum, zip(*rows.values(), strict=True)))
        for name, row in (*rows.items(), ("sum", total)):
            print(f"  {name:32s}{sum(row):5d}{row[0]:10d}{row[1]:8d}{row[2]:11d}")
        print()
    for name, lines in solvers().items():
        print(f"{lines:5d}  {name}")
    for room in SHARED:
        print(f"{len(lines_of_code((PACKAGE / room).read_text())):5d}  shared: {room}, whole")


if __name__ == "__main__":
    main()
