"""Whose schedules are compared; what comes out is in tests/cli/test_schedules.py."""

from sdcore import compare, schedulers
from sdcore.compare.tools import differences


def test_the_tools_are_those_that_names_take() -> None:
    assert set(compare.TOOLS) == {"diffusers", *schedulers.TOOLS}


def test_every_tool_lays_its_default_as_itself() -> None:
    for tool in schedulers.TOOLS:
        scheduler = schedulers.resolve(f"{tool}:euler")
        assert {d.what for d in differences(scheduler, 7, tool)} <= {"noise"}, tool
