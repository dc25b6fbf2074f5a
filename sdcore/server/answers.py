"""Answers: JSON, and what each face calls an error."""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

_KINDS = {  # OpenAI's words for a status
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class Json(Response):
    """A JSON document in ASCII: whatever a text holds can be written."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def refusal(
    path: str,
    status: int,
    message: str,
    param: str | None = None,
    retry_after: int | None = None,
    errors: Any = None,
) -> Response:
    """An error as the face of this path writes it: OpenAI's, A1111's, or {"detail": ...}."""
    if path.startswith("/v1/"):
        status = 400 if status == 422 else status
        kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
        code = "rate_limit_exceeded" if status == 429 else None
        code = "model_not_found" if (status, param) == (404, "model") else code
        content: Any = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    elif path.startswith("/sdapi/"):
        content = {"error": kind_of(status), "detail": message, "body": "", "errors": message}
    else:
        content = {"detail": message if errors is None else errors}
        if param is not None:
            content["param"] = param
    headers: Mapping[str, str] = {} if retry_after is None else {"retry-after": str(retry_after)}
    return Json(content, status, headers)


def kind_of(status: int) -> str:
    """The reason phrase."""
    from http import HTTPStatus

    return HTTPStatus(status).phrase
