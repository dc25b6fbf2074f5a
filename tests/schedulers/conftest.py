"""How many runs the laws were tried on, told at the end of the tests; k-diffusion's samplers."""

from types import ModuleType

import pytest

from scripts.k_diffusion import samplers

RUNS = pytest.StashKey[set]()


@pytest.fixture(scope="session")
def tried(pytestconfig):
    """Add (solver, spacing, N, start, prediction type) of every run."""
    return pytestconfig.stash.setdefault(RUNS, set())


@pytest.fixture(scope="session")
def kd() -> ModuleType:
    """k-diffusion's samplers."""
    try:
        return samplers()
    except ImportError as error:
        pytest.skip(str(error))


def pytest_terminal_summary(terminalreporter, config):
    runs = config.stash.get(RUNS, set())
    if runs:
        solvers, spacings = len({run[0] for run in runs}), len({run[1] for run in runs})
        terminalreporter.write_line(
            f"laws: {len(runs)} different runs (solver, spacing, N, start, prediction type) "
            f"of {solvers} solvers on {spacings} spacings"
        )
