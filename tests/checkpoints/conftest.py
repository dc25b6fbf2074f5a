"""One small model of each family, made once."""

import pytest

from tests.checkpoints.twins import Twins


@pytest.fixture(scope="session")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> Twins:
    return Twins(tmp_path_factory.mktemp("sd1"), second=False)


@pytest.fixture(scope="session")
def sd2(tmp_path_factory: pytest.TempPathFactory) -> Twins:
    return Twins(tmp_path_factory.mktemp("sd2"), second=True)


@pytest.fixture(params=["sd1", "sd2"])
def twins(request: pytest.FixtureRequest) -> Twins:
    return request.getfixturevalue(request.param)
