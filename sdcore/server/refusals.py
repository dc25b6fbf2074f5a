"""What a request is answered with where it is not followed, and the HTTP status of each."""

from __future__ import annotations

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
