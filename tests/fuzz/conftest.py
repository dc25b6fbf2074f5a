"""What the fuzzer counted, as its last line."""

import pytest

from tests.fuzz.trial import COUNTS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    inputs, named = COUNTS["inputs"], ("traceback", "hang", "crash")
    if inputs:
        tracebacks, hangs, crashes = (COUNTS[name] for name in named)
        others = sum(COUNTS.values()) - inputs - tracebacks - hangs - crashes
        terminalreporter.write_line(
            f"{inputs} inputs tried: {tracebacks} tracebacks, {hangs} hangs, {crashes} crashes, "
            f"{others} other misbehaviours"
        )
