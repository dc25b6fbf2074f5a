"""Run the tutorial as a reader does: every chapter's code, as it stands on the page.

    python -m scripts.tutorial              # all of it: the pictures, what is printed, the seconds
    python -m scripts.tutorial 04 05        # these chapters
    python -m scripts.tutorial --check      # writes nothing; what is printed is as on the pages?

A chapter is a page of docs/tutorial/ whose name begins with its number. Its ```python blocks run in
order, in one namespace, in the folder of the pictures; a ```text block below one of them is what
it prints.
"""

import io
import math
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from sdcore.errors import InputError
from sdcore.writing import write_whole

FOLDER = Path(__file__).parents[1] / "docs" / "tutorial"
PICTURES = FOLDER / "pictures"
BLOCK = re.compile(r"```python\n(?P<code>.*?)```\n(?:\n```text\n(?P<printed>.*?)```\n)?", re.S)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
# Of a printed number, beside half a unit of its last digit: processors round, and steps add it up.
RELATIVE = 0.03


@dataclass(frozen=True)
class Block:
    """An example, and what stands below it as what it prints."""

    code: str
    printed: str


def chapters(names: Sequence[str] = ()) -> list[Path]:
    """The pages of the chapters, in order. Raises InputError for one that is not there."""
    pages = sorted(FOLDER.glob("[0-9][0-9]-*.md"))
    for name in names:
        if not any(page.name.startswith(name) for page in pages):
            raise InputError(f"there is no chapter {name!r}: {', '.join(p.stem for p in pages)}")
    return [page for page in pages if page.name.startswith(tuple(names) or "")]


def blocks(text: str) -> list[Block]:
    """The examples of a page."""
    return [Block(each["code"], each["printed"] or "") for each in BLOCK.finditer(text)]


def run(examples: Sequence[Block], folder: Path) -> list[str]:
    """Run a chapter's examples in a folder; what each printed."""
    names: dict = {"__name__": "__main__"}
    printed = []
    with chdir(folder):
        for number, block in enumerate(examples, start=1):
            out = io.StringIO()
            with redirect_stdout(out):
                exec(compile(block.code, f"example {number}", "exec"), names)
            printed.append(out.getvalue())
    return printed


def with_printed(text: str, printed: Sequence[str]) -> str:
    """The page with this below its blocks, where a block prints anything."""
    left = iter(printed)

    def shown(match: re.Match) -> str:
        said = next(left)
        return f"```python\n{match['code']}```\n" + (f"\n```text\n{said}```\n" if said else "")

    return BLOCK.sub(shown, text)


def differences(shown: str, printed: str, numbers: bool = True) -> Iterator[str]:
    """Where what was printed is another text than what is shown, numbers to `RELATIVE`.

    numbers: False compares the words between them only, as for a run of another model.
    """
    if NUMBER.sub("#", shown).split() != NUMBER.sub("#", printed).split():
        yield f"shown: {shown!r}, printed: {printed!r}"
        return
    for ours, theirs in zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True):
        unit = 10.0 ** -len(ours.partition("e")[0].partition(".")[2])
        unit *= 10.0 ** int(ours.partition("e")[2] or 0)
        near = math.isclose(float(ours), float(theirs), rel_tol=RELATIVE, abs_tol=unit)
        if numbers and not near:
            yield f"shown: {ours}, printed: {theirs}"


def _line(name: str, took: Sequence[float]) -> str:
    return f"{name:<24} {took[0]:6.1f} s, {took[1]:6.1f} s of a processor"


@click.command(help=__doc__, context_settings={"max_content_width": 100})
@click.argument("names", nargs=-1, metavar="[CHAPTER]...")
@click.option("--check", is_flag=True, help="Write nothing; compare what is printed.")
def main(names: Sequence[str], check: bool) -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    whole, parted = [0.0, 0.0], 0
    for page in chapters(names):
        text = page.read_text("utf-8")
        start, used = time.perf_counter(), time.process_time()
        with TemporaryDirectory() as aside:
            if not check:
                PICTURES.mkdir(exist_ok=True)
            printed = run(blocks(text), Path(aside) if check else PICTURES)
        took = time.perf_counter() - start, time.process_time() - used
        whole = [a + b for a, b in zip(whole, took, strict=True)]
        for block, said in zip(blocks(text), printed, strict=True):
            for line in differences(block.printed, said) if check else ():
                click.echo(f"{page.name}: {line}", err=True)
                parted += 1
        if not check:
            write_whole(page, with_printed(text, printed).encode())
        click.echo(_line(page.stem, took))
    click.echo(_line("all", whole))
    sys.exit(bool(parted))


if __name__ == "__main__":
    main()
