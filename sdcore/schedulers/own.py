"""A solver from a user's own file: one function with the signature of `sdcore.sampling.Solver`."""

import importlib.util
import inspect
from pathlib import Path

from sdcore.errors import InputError
from sdcore.sampling import Solver


def load_solver(path: str | Path) -> Solver:
    """The solver in a Python file: the function `solver`, or the one named like the file.

    The file is executed. Raises InputError where there is no such file or function, or it fails.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no solver file {str(path)!r}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{path.name} does not run: {type(error).__name__}: {error}") from error
    for name in ("solver", path.stem):
        function = getattr(module, name, None)
        if inspect.isfunction(function):
            return function
    raise InputError(f"{path.name} has no function named solver or {path.stem}")
