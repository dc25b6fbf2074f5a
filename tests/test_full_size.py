"""Random models of the published sizes, by both engines, each in a process of its own."""

import pytest

pytest.importorskip("diffusers")
from scripts import families


@pytest.mark.slow
@pytest.mark.parametrize("name", families.FULL)
def test_components_and_two_steps(name: str) -> None:
    with families.model(name) as folder:
        errors = families.compare(name, folder)
    for component, (_, relative) in errors.items():
        assert relative <= 1e-5, component
