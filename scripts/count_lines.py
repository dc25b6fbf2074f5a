"""Lines to read: for one whole Euler run with guidance, part by part, and for each solver.

    python -m scripts.count_lines

Three columns: declarations (fields, type aliases, protocols), guards (an `if` that only raises) and
the code that computes; their sum is what there is to read.

Counted are the spans, in the syntax tree, of everything that such a run touches from noise to
latents: functions and classes with their decorators, and the type aliases and constants that they
use. Not counted: docstrings, comments, blank lines, imports, the network, the text, names and
configs, and within a class the methods that an Euler run does not call (listed as left out).

Then every solver's own function, its signature included, and the rooms that several solvers share.
"""

import ast
import inspect
import io
import tokenize
from pathlib import Path
from typing import Any

from sdcore.schedulers import TABLE

PACKAGE = Path(__file__).resolve().parent.parent / "sdcore"

# part: (file, top-level names, methods left out)
PARTS = {
    "schedule": (
        "schedulers/noise_schedule.py",
        ("scaled_linear", "NoiseSchedule"),
        ("log_sigmas", "timestep"),  # off the grid only
    ),
    "grid": ("schedulers/spacing/timesteps.py", ("at_timesteps", "linspace"), ()),
    "plan": (
        "schedulers/spacing/plan.py",
        ("Grid", "Rule", "Plan", "Spacing"),
        (),
    ),
    "denoiser": (
        "denoiser.py",
        ("Denoiser",),
        (),
    ),
    "process": (
        "process.py",
        ("Pair", "Clock", "_plus", "from_eps", "Form", "FORMS", "VariancePreserving"),
        ("transition_variance", "raw"),
    ),
    "branches": (
        "guidance/base.py",
        ("Guidance", "Branches", "lerp"),
        ("__iter__", "__len__"),
    ),
    "guidance": ("guidance/cfg.py", ("CFG",), ()),
    "solver": ("schedulers/euler.py", ("ancestral", "euler"), ()),
    "loop": (
        "sampling.py",
        (
            *("Prediction", "Interval", "Memory", "Denoise", "Noise", "Draw", "Solver"),
            *("State", "Step", "sample"),
        ),
        (),
    ),
    "noise": ("noise.py", ("SeededNoise",), ()),
}

SHARED = ("schedulers/integrals.py", "schedulers/entry.py")  # read once, for every solver


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


def names(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Assign):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {getattr(node, "name", "")}


def is_declaration(node: ast.AST) -> bool:
    if isinstance(node, ast.ClassDef):
        return any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases)
    return isinstance(node, ast.AnnAssign)


def is_guard(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.body[0], ast.Raise) and not node.orelse


def count(file: str, wanted: tuple[str, ...], left_out: tuple[str, ...]) -> tuple[int, int, int]:
    """(declarations, guards, the rest) in lines."""
    source = (PACKAGE / file).read_text()
    code, found = lines_of_code(source), set()
    kept: set[int] = set()
    declared: set[int] = set()
    guards: set[int] = set()
    for node in ast.parse(source).body:
        if names(node) & set(wanted):
            found |= names(node)
            kept |= span(node)
            declared |= span(node) if isinstance(node, ast.Assign) else set()
            for inner in getattr(node, "body", []):
                if names(inner) & set(left_out):
                    kept -= span(inner)
            for inner in ast.walk(node):
                declared |= span(inner) if is_declaration(inner) else set()
                guards |= span(inner) if is_guard(inner) else set()
    missing = set(wanted) - found
    if missing:
        raise SystemExit(f"{file} has no {', '.join(sorted(missing))}: mend PARTS")
    kept &= code
    return len(kept & declared), len(kept & guards), len(kept - declared - guards)


def solvers() -> dict[str, int]:
    """file::function -> lines of code, the longest first; one function may be several entries."""
    found = {}
    for entry in TABLE:
        function: Any = getattr(entry.solver, "func", entry.solver)  # a partial's
        name = f"{function.__module__.removeprefix('sdcore.')}::{function.__name__}"
        found[name] = len(lines_of_code(inspect.getsource(function)))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def main() -> None:
    print(f"{'':10s}  sum  declared  guards  computing")
    six = [0, 0, 0]
    for part, (file, wanted, left_out) in PARTS.items():
        counts = count(file, wanted, left_out)
        if part != "noise":
            six = [a + b for a, b in zip(six, counts, strict=True)]
        without = f"; without {', '.join(left_out)}" if left_out else ""
        what = f"{file}: {', '.join(wanted)}{without}"
        print(f"{part:10s}{sum(counts):5d}{counts[0]:10d}{counts[1]:8d}{counts[2]:11d}  {what}")
    print(f"{'sum':10s}{sum(six):5d}{six[0]:10d}{six[1]:8d}{six[2]:11d}  without noise\n")
    for name, lines in solvers().items():
        print(f"{lines:5d}  {name}")
    for room in SHARED:
        print(f"{len(lines_of_code((PACKAGE / room).read_text())):5d}  shared: {room}, whole")


if __name__ == "__main__":
    main()
