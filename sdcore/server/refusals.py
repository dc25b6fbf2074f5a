"""What a request is answered with where it is not followed, and the HTTP status of each."""

from __future__ import annotations

import traceback

from sdcore.errors import InputError


class Refused(InputError):
    """A request that is not followed. Faces answer with `status` and the line.

    retry_after: seconds after which it is worth another try; None: never as it is.
    param: the field that is meant, where it is one.
    """

    status = 422

    def __init__(
        self, message: str, retry_after: int | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after, self.param = retry_after, param


class Full(Refused):
    """The queue holds as much work as it may."""

    status = 429


class Unready(Refused):
    """The server is about to stop, or has not begun."""

    status = 503


class Missing(Refused):
    """Nothing of that name or id is here. The same for what is absent and what is forbidden."""

    status = 404


class Failed(Refused):
    """It went wrong while it was drawn, and not by the request."""

    status = 500


class NoRoom(Refused):
    """Memory ran out, and nothing leaner or smaller was left to try."""

    status = 507


def places(error: BaseException) -> str:
    """The type of an exception and where it came from, for the log: its words may be a prompt's."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    where = " < ".join(f"{frame.filename}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(error).__name__} at {where}"
