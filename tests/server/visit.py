"""Somebody who has the page open in a real browser."""

import re
from typing import Any

SECONDS = 60_000  # milliseconds, at most, for anything
DONE = ".run[data-state=done]"


class Visit:
    """A page that is open, and whatever went wrong in it."""

    def __init__(self, browser: Any, port: int, **context: Any) -> None:
        self.home = f"http://127.0.0.1:{port}"
        self.context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, **context}
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(SECONDS)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda m: m.type == "error" and self.errors.append(m.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(self.home)
        self.page.wait_for_selector("#form[data-ready]")

    def draw(self, prompt: str = "a red boat", steps: int = 6, scheduler: str = "euler_a") -> None:
        """A picture that is done."""
        before = self.page.locator(DONE).count()
        self.page.fill("#f-prompt", prompt)
        self.page.fill("#f-steps", str(steps))
        self.page.select_option("#f-scheduler", scheduler)
        self.page.click("#draw")
        self.page.locator(DONE).nth(before).wait_for()
        self.page.wait_for_selector(".lane-A .caption:has-text('decoded')")
        self.page.focus("#study")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
        self.settle()

    def settle(self) -> None:
        """What was asked for is painted in the next frame but one."""
        self.page.evaluate(
            "new Promise(f => requestAnimationFrame(() => requestAnimationFrame(f)))"
        )

    def ask(self, path: str) -> Any:
        return self.page.evaluate("path => fetch(path).then(a => a.json())", path)

    def runs(self) -> list[Any]:
        return self.ask("/runs")

    def close(self, but: str = "") -> None:
        """Nothing went wrong, and nothing was asked of anybody else. but: errors that are meant."""
        strange = [
            url for url in self.requests if not url.startswith((self.home, "blob:", "data:"))
        ]
        wrong = [each for each in self.errors if not (but and re.search(but, each))]
        self.context.close()
        assert (strange, wrong) == ([], [])
