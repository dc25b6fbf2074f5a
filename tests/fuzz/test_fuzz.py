"""Whatever a stranger sends ends in a result or in one line: no traceback, no hang, no crash.

`make fuzz ARGS="--times 50"` tries fifty times as many inputs and prints what it counted. An input
that misbehaved is made again by its kind and its seed: `pytest tests/fuzz --inputs headers:17`.
"""

from pathlib import Path

import pytest

from tests.fuzz.kinds import KINDS
from tests.fuzz.trial import COUNTS, Finding, tried

SHORT = 6  # inputs of each kind in the default run


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_input_ends_in_a_result_or_in_one_line(
    kind, tiny_path: Path, request: pytest.FixtureRequest
) -> None:
    chosen, _, seed = (request.config.getoption("--inputs") or "").partition(":")
    if chosen and chosen != kind.__name__:
        pytest.skip("another kind was asked for")
    times = request.config.getoption("--times")
    seeds = [int(seed)] if seed else range(SHORT * times)
    found: list[Finding] = []
    for finding in tried(kind, seeds, tiny_path):
        COUNTS["inputs"] += 1
        if finding is not None:
            COUNTS[finding.what] += 1
            found.append(finding)
    assert not found, "\n".join(f"{f.kind}:{f.seed} {f.what}: {f.detail}" for f in found)
