"""Lines to read for one whole Euler run with guidance, part by part.

    python -m scripts.count_lines

Counted are the spans, in the syntax tree, of everything that such a run touches from noise to
latents: functions and classes with their decorators, and the type aliases and constants that they
    use. Not
counted: docstrings, comments, blank lines, imports, the network, the text, names and configs, and
within a class the methods that an Euler run does not call (listed below as left out).
"""

import ast
import io
import tokenize
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "sdcore"

# part: (file, top-level names, methods left out)
PARTS = {
    "schedule": (
        "schedulers/noise_schedule.py",
        ("make_betas", "NoiseSchedule", "_interpolate"),
        ("log_sigmas", "timestep"),  # off the grid only
    ),
    "spacing": (
        "schedulers/spacing.py",
        ("Grid", "Rule", "at_timesteps", "linspace", "Plan", "Spacing"),
        (),
    ),
    "denoiser": ("denoiser.py", ("PREDICTION_TYPES", "to_x0_eps", "Denoiser"), ()),
    "guidance": ("guidance.py", ("Guidance", "CFG"), ()),
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


def span(node: ast.stmt) -> set[int]:
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    return set(range(first, (node.end_lineno or first) + 1))


def names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.Assign):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {getattr(node, "name", "")}


def count(file: str, wanted: tuple[str, ...], left_out: tuple[str, ...]) -> int:
    source = (PACKAGE / file).read_text()
    code, kept, found = lines_of_code(source), set(), set()
    for node in ast.parse(source).body:
        if names(node) & set(wanted):
            found |= names(node)
            kept |= span(node)
            for inner in getattr(node, "body", []):
                if names(inner) & set(left_out):
                    kept -= span(inner)
    missing = set(wanted) - found
    if missing:
        raise SystemExit(f"{file} has no {', '.join(sorted(missing))}: mend PARTS")
    return len(code & kept)


def main() -> None:
    counts = {part: count(*where) for part, where in PARTS.items()}
    for part, lines in counts.items():
        file, wanted, left_out = PARTS[part]
        without = f"   without {', '.join(left_out)}" if left_out else ""
        print(f"{part:10s}{lines:5d}   {file}: {', '.join(wanted)}{without}")
    six = sum(lines for part, lines in counts.items() if part != "noise")
    print(f"{'sum':10s}{six:5d}   schedule, spacing, denoiser, guidance, solver, loop")
    print(f"{'':10s}{six + counts['noise']:5d}   with seeded noise")


if __name__ == "__main__":
    main()
