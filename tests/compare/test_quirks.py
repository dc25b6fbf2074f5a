"""The registry of the references' errors: each case has a test that measures what it says."""

import re
from pathlib import Path

import pytest

from sdcore.compare.quirks import BY_NAME, QUIRKS

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("quirk", QUIRKS, ids=lambda quirk: quirk.name)
def test_every_quirk_has_a_test_that_measures_it(quirk):
    file, function = quirk.test.split("::")
    source = (TESTS / file).read_text()
    assert re.search(rf"^def {function}\(", source, re.MULTILINE), quirk.test
    assert f'number("{quirk.name}")' in source, f"{file} does not compare with the registry"


def test_names_are_unique_and_say_whose():
    assert len(BY_NAME) == len(QUIRKS)
    for quirk in QUIRKS:
        assert quirk.name.split(".")[0] in ("diffusers", "k_diffusion", "all")
        assert re.search(r"\d", quirk.reference), "the version is part of the reference"
        assert quirk.what.endswith(".")


def test_every_number_that_a_test_takes_is_registered():
    taken = set()
    for path in (*(TESTS / "schedulers").glob("*.py"), *(TESTS / "guidance").glob("*.py")):
        taken |= set(re.findall(r'number\("([\w.]+)"\)', path.read_text()))
    assert taken == set(BY_NAME)
