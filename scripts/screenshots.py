"""Pictures of the page for its documentation, how much it weighs, and how soon it paints.

    python -m scripts.screenshots                  # writes docs/page.png, prints the figures
    python -m scripts.screenshots --out out/page   # all of them: light, dark, a phone's width

A server with the bundled model draws them; it needs playwright and Debian's chromium.
"""

from __future__ import annotations

import gzip
import platform
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from PIL import Image

from sdcore.server.page_files import contents

DONE = ".lane-A .caption:has-text('decoded')"
PAINTED = "performance.getEntriesByName('click to painted').map((entry) => entry.duration)"
DOCS = Path(__file__).parents[1] / "docs"


@contextmanager
def served() -> Iterator[str]:
    """The address of a server with the bundled model."""
    command = [sys.executable, "-m", "sdcore", "serve", "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        line = next(line for line in server.stderr if "http://" in line)
        yield line.split()[0]
    finally:
        server.terminate()
        server.wait(30)


@contextmanager
def opened(browser: Any, address: str, **context: Any) -> Iterator[Any]:
    """A page that is ready."""
    with browser.new_context(**context) as visit:
        page = visit.new_page()
        page.set_default_timeout(300_000)
        page.goto(address)
        page.wait_for_selector("#form[data-ready]")
        yield page


def drawn(page: Any, prompt: str, scheduler: str, steps: int, seed: int = 0) -> None:
    """A picture, on Karras' spacing."""
    page.fill("#f-prompt", prompt)
    page.fill("#f-seed", str(seed))
    page.fill("#f-steps", str(steps))
    page.select_option("#f-scheduler", scheduler)
    page.select_option("#f-spacing", "karras")
    page.click("#draw")
    page.wait_for_selector(f".lane-A h2 .prompt:has-text('{prompt}')")
    page.wait_for_selector(DONE)
    page.focus("#study")


def study(page: Any) -> None:
    """Two solvers side by side, their references, and a branch."""
    drawn(page, "a big yellow cat in the mountains", "dpmpp_2m", 16, 3)
    drawn(page, "a red house at sunset", "dpmpp_2m", 16)
    press(page, *["ArrowLeft"] * 11, "b")
    page.fill("#d-prompt", "a red boat at sunset")
    page.click("dialog button.primary")
    page.wait_for_selector("#tree ul .run[data-state=done]")
    page.locator("#tree > li > .item > .run").first.click()
    press(page, "c")
    page.select_option("#d-scheduler", "unipc")
    page.click("dialog button.primary")
    page.wait_for_selector(".lane-B .caption:has-text('decoded')")
    page.click("#measure")
    page.wait_for_selector("#legend:has-text('B ends')")
    press(page, *["ArrowLeft"] * 9)


def shot(page: Any, path: Path) -> None:
    """All of the page, in 256 colours: a third of the bytes, and no difference to be seen."""
    page.screenshot(path=path, full_page=True)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def press(page: Any, *keys: str) -> None:
    page.focus("#study")
    for key in keys:
        page.keyboard.press(key)
    page.wait_for_timeout(200)


def until_painted(page: Any, times: int) -> float:
    """Milliseconds from the click on Draw to a step on the screen: the median."""
    measured: list[float] = []
    for seed in range(times):
        page.evaluate("performance.clearMeasures()")
        drawn(page, f"a red boat by the sea, {seed}", "dpmpp_2m", 10, seed)
        page.wait_for_timeout(100)
        measured += page.evaluate(PAINTED)
    assert len(measured) == times
    return statistics.median(measured)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="All of them, into this folder.")
@click.option("--times", default=5, show_default=True, help="Of the measurement.")
@click.option("--figures-only", is_flag=True, help="No pictures.")
def main(out: Path | None, times: int, figures_only: bool) -> None:
    """Write the pictures and print the figures."""
    from playwright.sync_api import sync_playwright

    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    with served() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        folder = DOCS if out is None else out
        folder.mkdir(parents=True, exist_ok=True)
        if not figures_only:
            with opened(browser, address, viewport={"width": 1360, "height": 900}) as page:
                study(page)
                shot(page, folder / "page.png")
                if out is not None:
                    page.click("#theme")
                    page.wait_for_timeout(200)
                    shot(page, folder / "page-dark.png")
        if out is not None and not figures_only:
            with opened(browser, address, viewport={"width": 360, "height": 740}) as page:
                drawn(page, "a white star at night", "euler", 8)
                shot(page, folder / "page-phone.png")
        with opened(browser, address, viewport={"width": 1360, "height": 900}) as page:
            milliseconds = until_painted(page, times)
        browser.close()
    files = contents()
    whole = sum(map(len, files.values()))
    packed = sum(len(gzip.compress(data)) for data in files.values())
    print(f"page: {len(files)} files, {whole / 1000:.1f} kB ({packed / 1000:.1f} kB gzipped)")
    print(f"click to first painted step: {milliseconds:.0f} ms, median of {times}, {_processor()}")


def _processor() -> str:
    try:
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return platform.processor() or platform.machine() if found is None else found[1]


if __name__ == "__main__":
    main()
