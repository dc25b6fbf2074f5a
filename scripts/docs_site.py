"""What MkDocs is told beyond mkdocs.yml: the README as front page, source files, the reference.

The pages of docs/ link to files of the repository as a reader of the repository finds them. In the
site those files are pages too: Markdown as it is, sources in colour, folders as lists. So no link
leads out of the site, and none is broken where the site is built from.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from griffe import Attribute, Docstring, Extension, Object
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
ASIDE = "repository"  # where files from outside of docs/ are in the site
# A link to a file; what looks like one inside of code is left alone, since code is matched first.
LINK = re.compile(r"```.*?```|`[^`\n]*`|(?<=\]\()(?![a-z]+:|#)(?P<to>[^)#\s]+)(?=[)#])", re.S)
LANGUAGES = {".py": "python", ".json": "json", ".yaml": "yaml", ".toml": "toml", "": "text"}
REFERENCE = {  # the modules that a program of one's own uses, under their headings
    "The loop": ("sampling", "denoiser", "process", "noise", "brownian", "guidance"),
    "Schedulers": (
        "schedulers.scheduler",
        "schedulers.spacing.plan",
        "schedulers.noise_schedule",
        "schedulers.tableau",
        "interop",
    ),
    "From words to pictures": (
        "loading",
        "pipeline",
        "run",
        "picture_options",
        "settings",
        "images",
        "sheets",
    ),
    "Going on and going back": ("state_file", "inversion", "likelihood", "hires", "film"),
    "Studying": (
        "lab.worlds",
        "lab.order",
        "lab.check",
        "trajectory.recorder",
        "trajectory.file",
        "trajectory.geometry",
        "trajectory.difference",
        "experiments.comparison",
        "experiments.distances",
        "charts",
        "notebook",
    ),
}


DOCTEST = re.compile(r"^>>> .*(?:\n.+)*", re.M)
COMMENT = re.compile(r"  # (?!noqa|fmt|type)(.+)$")


class Docstrings(Extension):
    """What the reference reads: docstrings, and the comments beside the fields of a class."""

    def on_object(self, *, obj: Object, **more: Any) -> None:
        """Examples become blocks of code: to Markdown ">>>" is a quotation."""
        if obj.docstring is not None:
            obj.docstring.value = DOCTEST.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)

    def on_attribute_instance(self, *, attr: Attribute, **more: Any) -> None:
        last = attr.source.splitlines()[-1:]
        comment = COMMENT.search(last[0]) if last else None
        if attr.docstring is None and comment:
            attr.docstring = Docstring(comment[1], parent=attr)


def place_of(path: PurePosixPath) -> str:
    """Where a file of the repository is in the site, as MkDocs names its sources."""
    if path == PurePosixPath("README.md"):
        return "index.md"
    if path.parts[0] == "docs":
        return str(path.relative_to("docs"))
    if (ROOT / path).is_dir():
        return f"{ASIDE}/{path}/index.md"
    kept = path.suffix in (".md", ".png", ".webp")
    return f"{ASIDE}/{path}" if kept else f"{ASIDE}/{path}.md"


def linked(path: PurePosixPath, text: str) -> Iterator[PurePosixPath]:
    """The files and folders that a page of the repository links to."""
    for match in LINK.finditer(text):
        if match["to"]:
            yield PurePosixPath(os.path.normpath(path.parent / match["to"]))


def rewritten(path: PurePosixPath, text: str) -> str:
    """The page with its links as they lead inside the site."""
    here = PurePosixPath(place_of(path)).parent

    def moved(match: re.Match) -> str:
        if not match["to"]:
            return match[0]
        target = PurePosixPath(os.path.normpath(path.parent / match["to"]))
        return os.path.relpath(place_of(target), here)

    return LINK.sub(moved, text)


def page_of(path: PurePosixPath) -> str:
    """A file or folder from outside of docs/ as Markdown, with links of the repository."""
    source = ROOT / path
    if source.is_dir():
        inside = sorted(each for each in source.iterdir() if each.name[0] not in "._")
        rows = [
            f"* [{each.name}]({path.name}/{each.name})" if _readable(each) else f"* {each.name}"
            for each in inside
        ]
        return f"# {path}\n\n" + "\n".join(rows) + "\n"
    text = source.read_text("utf-8")
    if path.suffix == ".md":
        return text
    language = LANGUAGES.get(path.suffix, "text")
    return f"# {path}\n\n````{language}\n{text}````\n"


def _readable(path: Path) -> bool:
    return path.is_file() and path.suffix in LANGUAGES and path.stat().st_size < 100_000


def outside() -> dict[PurePosixPath, str]:
    """All that the pages lead to outside of docs/, as Markdown; pictures as ""."""
    pages = {
        PurePosixPath(page.relative_to(ROOT).as_posix()): page.read_text("utf-8")
        for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    }
    waiting, found = list(pages.items()), dict[PurePosixPath, str]()
    while waiting:
        path, text = waiting.pop()
        for target in linked(path, text):
            if target in pages or target in found or target.parts[0] == "docs":
                continue
            if not (ROOT / target).exists():  # MkDocs says so, with the page's name
                continue
            picture = target.suffix in (".png", ".webp")
            found[target] = "" if picture else page_of(target)
            waiting.append((target, found[target] if _has_links(target) else ""))
    return found


def _has_links(path: PurePosixPath) -> bool:
    """Whether what looks like a link in it is one: in sources it is code."""
    return path.suffix == ".md" or (ROOT / path).is_dir()


def on_files(files: Files, config: Any) -> Files:
    """Add the front page, what is linked from outside of docs/, and the reference."""
    front = rewritten(PurePosixPath("README.md"), (ROOT / "README.md").read_text("utf-8"))
    files.append(File.generated(config, "index.md", content=front))
    for path, text in outside().items():
        place = place_of(path)
        if not text:
            picture = str(ROOT / path)
            files.append(File.generated(config, place, abs_src_path=picture))
            continue
        content = rewritten(path, text) if _has_links(path) else text
        files.append(File.generated(config, place, content=content))
    for heading, modules in REFERENCE.items():
        for module in modules:
            name = f"sdcore.{module}"
            content = f"# {name}\n\n*{heading}*\n\n::: {name}\n"
            files.append(File.generated(config, f"reference/{name}.md", content=content))
    contents = "# Reference\n\nThe modules that a program of one's own uses.\n"
    for heading, modules in REFERENCE.items():
        links = "\n".join(f"* [sdcore.{module}](sdcore.{module}.md)" for module in modules)
        contents += f"\n## {heading}\n\n{links}\n"
    files.append(File.generated(config, "reference/index.md", content=contents))
    return files


def on_page_markdown(markdown: str, page: Any, **more: Any) -> str:
    """Lead the links of docs/ inside the site."""
    if page.file.generated_by is not None:
        return markdown
    return rewritten(PurePosixPath("docs") / page.file.src_uri, markdown)
