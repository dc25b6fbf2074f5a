"""A function with other globals than its module's, so that it draws what it is given."""

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any


def rebound(function: Callable[..., Any], **names: Any) -> Callable[..., Any]:
    """The function where these of its globals are others; itself where it has none of them.

    Decorators that say what they wrap are left off. Nothing of its module is changed.
    """
    inner: Any = inspect.unwrap(function)
    if not isinstance(inner, FunctionType) or not names.keys() & inner.__globals__.keys():
        return function
    about = {**inner.__globals__, **names}
    copy = FunctionType(
        inner.__code__, about, inner.__name__, inner.__defaults__, inner.__closure__
    )
    copy.__kwdefaults__ = inner.__kwdefaults__
    return copy
