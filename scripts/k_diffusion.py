"""k-diffusion's samplers alone: its package imports what is needed for training and not here."""

import importlib
import importlib.util
import sys
from functools import cache
from types import ModuleType
from unittest import mock


def samplers() -> ModuleType:
    """The module k_diffusion.sampling. Raises ImportError where it is not installed."""
    found = importlib.util.find_spec("k_diffusion")
    if found is None or found.submodule_search_locations is None:
        raise ImportError("k-diffusion is not installed")
    return _load(*found.submodule_search_locations)


@cache
def _load(folder: str) -> ModuleType:
    package = ModuleType("k_diffusion")
    package.__path__ = [folder]
    stubs = {name: mock.MagicMock() for name in ("torchvision", "torchvision.transforms")}
    sys.modules.update({"k_diffusion": package, **stubs})
    try:
        return importlib.import_module("k_diffusion.sampling")
    finally:
        for name in ("k_diffusion", *stubs):
            del sys.modules[name]
