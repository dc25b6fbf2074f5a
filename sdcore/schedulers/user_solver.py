"""A solver from a user's own file: one function with the signature of `sdcore.sampling.Solver`,
or a Butcher tableau.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial, wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdcore.errors import InputError
from sdcore.keywords import keywords
from sdcore.paths import path_of
from sdcore.sampling import Denoise, Draw, Interval, Memory, Prediction, Solver
from sdcore.schedulers.solvers.runge_kutta import runge_kutta
from sdcore.schedulers.tableau import SUFFIX, read
from sdcore.user_file import blame, load_object
from sdcore.written import Value

ARGUMENTS = ("denoise", "x", "interval", "memory", "draw")


def load_solver(
    path: str | Path, name: str = "", options: Mapping[str, Value] | None = None
) -> Solver:
    """The solver in a Python file: the one of this name, else `solver`, or the one named like it.

    The file is executed; one that ends in .tableau is read, and is `runge_kutta` with it
    (sdcore/schedulers/tableau.py). options: keywords of the function, or of a class, whose object
    is then the solver. Raises InputError where there is no such file or solver, it fails, or it
    does not take a solver's arguments or these options; the solver itself does so in a step that
    fails or returns
    something else (see `explained`).
    """
    path, options = path_of(path), {} if options is None else options
    if path.suffix == SUFFIX:
        if name:
            raise InputError(f"{path.name} holds one tableau, and none is called {name}")
        what = f"the tableau {path.name}"
        given = keywords(options, runge_kutta, what, len(ARGUMENTS), ("tableau",))
        return partial(runge_kutta, tableau=read(path), **given)
    names = (name,) if name else ("solver", path.stem)
    target = load_object(path, names, "solver")
    what = f"the solver of {path.name}"
    if isinstance(target, type):
        return explained(_made(target, keywords(options, target, what), path), path)
    solver = explained(target, path)
    given = keywords(options, solver, what, skip=len(ARGUMENTS))
    return partial(solver, **given) if given else solver


def explained(function: Callable[..., Any], path: Path) -> Solver:
    """The function, whose mistakes are InputErrors of one line that name the file.

    Whatever it raises (not what the model does that it asks rightly), and what it returns in place
    of (x_next, prediction, memory) with x_next like x. Raises InputError where it does not take a
    solver's arguments.
    """
    check_takes(function, f"the solver of {path.name}")

    @wraps(function)
    def solver(
        denoise: Denoise, x: Tensor, interval: Interval, memory: Memory, draw: Draw, **options: Any
    ) -> Any:
        from_outside: list[BaseException] = []

        def ask(x_asked: Tensor, sigma: float) -> Prediction:
            _check_question(x_asked, sigma, x)
            try:
                return denoise(x_asked, sigma)
            except BaseException as error:
                from_outside.append(error)
                raise

        try:
            answer = function(ask, x, interval, memory, draw, **options)
        except (KeyboardInterrupt, torch.OutOfMemoryError, MemoryError):
            raise
        except BaseException as error:
            if any(error is known for known in from_outside):
                raise
            raise blame(error, path, "solver") from error
        _check_answer(answer, x, path)
        return answer

    return solver


def check_takes(function: Callable[..., Any], who: str) -> None:
    """Raises InputError, beginning with `who`, where it does not take a solver's arguments."""
    try:
        inspect.signature(function).bind(*ARGUMENTS)
    except (TypeError, ValueError):  # a builtin has no signature
        raise InputError(
            f"{who} takes {_signature(function)}, and is given ({', '.join(ARGUMENTS)})"
        ) from None


def _check_question(asked: Any, sigma: Any, x: Tensor) -> None:
    if not isinstance(asked, Tensor) or asked.shape != x.shape or asked.device != x.device:
        raise InputError(f"denoise is asked at {_described(asked)}, where x is {_described(x)}")
    if not isinstance(sigma, (int, float, Tensor)) or not 0 <= float(sigma) < math.inf:
        raise InputError(f"denoise is asked at sigma {sigma!r:.40}: a finite number of at least 0")


def _check_answer(answer: Any, x: Tensor, path: Path) -> None:
    match answer:
        case (Tensor() as x_next, Prediction() as prediction, _):
            pass
        case _:
            raise InputError(
                f"{path.name} returns {_types(answer)} and not (x_next, prediction, memory)"
            )
    if any(
        getattr(x_next, name) != getattr(x, name) for name in ("shape", "dtype", "device", "layout")
    ):
        raise InputError(f"{path.name} returns {_described(x_next)} for x, {_described(x)}")
    if not x_next.isfinite().all() and prediction.x0.isfinite().all() and x.isfinite().all():
        raise InputError(f"{path.name} returns an x_next that is not finite, from an x that is")


def _made(kind: type, options: Mapping[str, Value], path: Path) -> Callable[..., Any]:
    try:
        return kind(**options)
    except Exception as error:
        raise blame(error, path, "solver") from error


def _signature(function: Callable[..., Any]) -> str:
    try:
        return str(inspect.signature(function))
    except (TypeError, ValueError):
        return "no arguments that can be told"


def _described(value: Any) -> str:
    """A tensor by shape, dtype and device; else the type."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    dtype = str(value.dtype).removeprefix("torch.")
    layout = "" if value.layout == torch.strided else f" {value.layout}".replace("torch.", "")
    return f"{dtype}{list(value.shape)} on {value.device}{layout}"


def _types(answer: object) -> str:
    """The types of what was returned."""
    if isinstance(answer, tuple):
        return f"({', '.join(type(item).__name__ for item in answer)})"
    return type(answer).__name__
