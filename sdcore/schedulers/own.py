"""A solver from a user's own file: one function with the signature of `sdcore.sampling.Solver`."""

import importlib.util
import inspect
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdcore.errors import InputError
from sdcore.sampling import Prediction, Solver

ARGUMENTS = ("denoise", "x", "interval", "memory", "draw")


def load_solver(path: str | Path) -> Solver:
    """The solver in a Python file: the function `solver`, or the one named like the file.

    The file is executed. Raises InputError where there is no such file or function, it fails, or
    the function does not take a solver's arguments; the solver itself does so in a step that fails
    or returns something else (see `explained`).
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
    except (Exception, SystemExit) as error:
        raise InputError(f"{path.name} does not run: {type(error).__name__}: {error}") from error
    for name in ("solver", path.stem):
        function = getattr(module, name, None)
        if callable(function) and not inspect.isclass(function):
            return explained(function, path)
    raise InputError(f"{path.name} has no function named solver or {path.stem}")


def explained(function: Callable[..., Any], path: Path) -> Solver:
    """The function, whose mistakes are InputErrors of one line that name the file.

    What its own lines raise (not what the model does) and what it returns in place of (x_next,
    prediction, memory). Raises InputError where it does not take a solver's arguments.
    """
    takes = inspect.signature(function)
    try:
        takes.bind(*ARGUMENTS)
    except TypeError:
        raise InputError(
            f"the solver of {path.name} takes {takes}, and is given ({', '.join(ARGUMENTS)})"
        ) from None

    @wraps(function)
    def solver(*given: Any, **options: Any) -> Any:
        try:
            answer = function(*given, **options)
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            if Path(last.filename).resolve() != path.resolve():
                raise
            said = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise InputError(f"{path.name}, line {last.lineno}: {said}") from error
        match answer:
            case (Tensor(), Prediction(), _):
                return answer
        raise InputError(
            f"{path.name} returns {_named(answer)} and not (x_next, prediction, memory)"
        )

    return solver


def _named(answer: object) -> str:
    """The types of what was returned."""
    if isinstance(answer, tuple):
        return f"({', '.join(type(each).__name__ for each in answer)})"
    return type(answer).__name__
