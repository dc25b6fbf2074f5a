"""Imports run downwards only: the floors of docs/architecture.md, held to the code.

A room is a module or a package right under `sdcore/`. Every import counts: at the top of a file,
inside a function, and for type checkers only.
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sdcore"


def modules() -> dict[str, Path]:
    """Dotted name -> file, of everything in the package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the package that a file imports; `from a import b` is a.b where there is."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in known:
                    yield inner
                elif node.module in known:
                    yield str(node.module)


def room(module: str) -> str:
    """`sdcore.schedulers.solvers.euler` -> `schedulers`; the public face is `__init__`."""
    return (*module.split("."), "__init__")[1]


def floors() -> list[list[str]]:
    """The rooms of each floor, the highest first, as docs/architecture.md lists them."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    block = text.split("## Floors")[1].split("```")[1]
    return [line.split() for line in block.strip().splitlines()]


def arrows() -> set[tuple[str, str]]:
    known = modules()
    return {(name, other) for name, path in known.items() for other in imports(path, known)}


def test_every_room_has_a_floor() -> None:
    listed = [name for floor in floors() for name in floor]
    assert sorted(listed) == sorted({room(name) for name in modules()})


def test_imports_run_downwards() -> None:
    height = {name: -number for number, floor in enumerate(floors()) for name in floor}
    across = {(room(a), room(b)) for a, b in arrows() if room(a) != room(b)}
    upward = sorted((a, b) for a, b in across if height[a] <= height[b])
    count = f"{len(height)} rooms on {len(floors())} floors, {len(across)} arrows"
    print(f"{count}, upward: {len(upward)} {upward}")
    assert upward == []


def test_no_circle_of_files() -> None:
    needs = {name: set[str]() for name in modules()}
    for name, other in arrows():
        needs[name].add(other)
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        raise AssertionError(f"a circle: {' -> '.join(error.args[1])}") from None
    print(f"{len(order)} files, circles: 0")
