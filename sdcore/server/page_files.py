"""The page at `/`: files of the package, as they are."""

# pyright: reportMissingImports=false

from __future__ import annotations

from importlib.resources import files
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from sdcore.server.refusals import Missing

FOLDER = "page"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# What the page may load: its own files, and pictures that it makes itself.
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


def contents() -> dict[str, bytes]:
    """Every file of the page, by its name."""
    folder = files("sdcore.server").joinpath(FOLDER)
    return {
        each.name: each.read_bytes()
        for each in sorted(folder.iterdir(), key=lambda each: each.name)
        if each.name[each.name.rfind(".") :] in KINDS
    }


def router() -> APIRouter:
    """The routes."""
    routes, held = APIRouter(), contents()

    def answer(name: str) -> Response:
        if name not in held:
            raise Missing("no such page")
        headers = {"content-security-policy": POLICY, "cache-control": "no-cache"}
        kind = KINDS[name[name.rfind(".") :]]
        return Response(held[name], media_type=kind, headers=headers)

    @routes.get("/", include_in_schema=False)
    async def index() -> Any:
        """The page."""
        return answer("index.html")

    @routes.get("/page/{name}", include_in_schema=False)
    async def file(name: str) -> Any:
        """A file of the page."""
        return answer(name)

    return routes
