"""The site of the docs: every page has its place, and links lead where they did."""

import os
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def test_every_page_of_the_docs_is_in_the_contents() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    listed = re.findall(r"[\w./-]+\.md", str(nav))
    pages = {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")}
    assert sorted(listed) == sorted(pages | {"index.md", "reference/index.md"})


def test_links_out_of_the_docs_lead_to_pages_of_the_site() -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("griffe")
    from scripts.docs_site import rewritten

    page = PurePosixPath("docs/tutorial/03-loop.md")
    text = "[a](../../sdcore/sampling.py) [b](05-order.md#top) ![c](pictures/x.webp) [d](https://e)"
    assert rewritten(page, text) == (
        "[a](../repository/sdcore/sampling.py.md) [b](05-order.md#top) ![c](pictures/x.webp) "
        "[d](https://e)"
    )
    code = "`rows[0](x)` and\n```python\nrows[0](x)\n```\n"
    assert rewritten(page, code) == code
    front = PurePosixPath("README.md")
    assert rewritten(front, "[a](docs/orders.md) [b](sdcore/guidance)") == (
        "[a](orders.md) [b](repository/sdcore/guidance/index.md)"
    )
    card = PurePosixPath("weights/README.md")
    assert rewritten(card, "[a](../README.md)") == "[a](../../index.md)"


@pytest.mark.slow
def test_the_site_is_built_and_asks_nobody_else(tmp_path: Path) -> None:
    """Strictly: a broken link is an error. No page loads anything from another host."""
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    for page in tmp_path.rglob("*.html"):
        loads = re.findall(r"<(?:script|link|img|iframe)[^>]*https?://[^>]*>", page.read_text())
        assert loads == [], page
    reference = (tmp_path / "reference" / "sdcore.sampling.html").read_text()
    assert "everything that happens between noise and latents" in reference
    assert "the picture behind the noise" in reference  # the comment beside a field
