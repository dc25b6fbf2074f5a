"""POST /generate: one picture for one prompt; and GET /health."""

# pyright: reportMissingImports=false

import base64
import time
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from sdcore.server.answers import Json
from sdcore.server.asked import MAX_SEED, MIN_SEED
from sdcore.server.options import ServerOptions
from sdcore.server.refusals import Unready
from sdcore.server.results import begun, encoded, ended
from sdcore.server.values import Real, Whole
from sdcore.server.worker import Worker

MAX_SIDE = 1024  # pixels, of the published contract


_SEEDS: Any = {"minimum": MIN_SEED, "maximum": MAX_SEED}


class _Generate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    num_inference_steps: Annotated[Whole, Field(ge=1, le=150)] = 50
    guidance_scale: Annotated[Real, Field(ge=1, le=20)] | None = None
    # Beyond 2^53 the bounds of a Field are told rounded: the range is checked where seeds are read.
    seed: Annotated[Whole, Field(json_schema_extra=_SEEDS)] | None = None
    width: Annotated[Whole, Field(ge=64, le=MAX_SIDE, multiple_of=8)] = 512
    height: Annotated[Whole, Field(ge=64, le=MAX_SIDE, multiple_of=8)] = 512


class Generated(BaseModel):
    """The picture, and how it was drawn."""

    image_base64: str
    generation_time: float  # seconds
    seed: int
    metadata: dict[str, Any]


class Health(BaseModel):
    status: str
    model_loaded: bool
    device: str


def router(worker: Worker, options: ServerOptions) -> APIRouter:
    """The routes."""
    routes = APIRouter()
    longest = options.max_prompt

    class Generate(_Generate):
        """What is asked for. Unknown fields are refused: a typo must not pass."""

        prompt: Annotated[str, Field(min_length=1, max_length=longest)]
        negative_prompt: Annotated[str, Field(max_length=longest)] = ""

    @routes.post("/generate", response_model=Generated)
    async def generate(asked: Generate, request: Request) -> Any:
        """Draw a picture."""
        start = time.perf_counter()
        fields = {
            "prompt": asked.prompt, "negative": asked.negative_prompt, "seed": asked.seed,
            "steps": asked.num_inference_steps, "cfg": asked.guidance_scale,
            "width": asked.width, "height": asked.height, "fallback": "size",
        }  # fmt: skip
        result = await ended(worker, await begun(worker, fields, "generate"), request)
        one = result.drawings[0]
        data = await encoded(worker, one, options)
        return Json(
            {
                "image_base64": base64.b64encode(data).decode("ascii"),
                "generation_time": time.perf_counter() - start,
                "seed": one.settings.seed,
                "metadata": _metadata(one.settings, result.notes, result.batched),
            }
        )

    @routes.get("/health", response_model=Health)
    async def health() -> Any:
        """Whether it draws."""
        if not worker.accepts:
            raise Unready("the server is about to stop", retry_after=5)
        networks = worker.models.peek(worker.models.default)
        device = str(networks.device) if networks is not None else _device(options)
        return Json({"status": "healthy", "model_loaded": networks is not None, "device": device})

    return routes


def _device(options: ServerOptions) -> str:
    from sdcore.devices import choose_device

    return str(choose_device(options.source.get("device")))


def _metadata(settings: Any, notes: list[str], batched: int) -> dict[str, Any]:
    """What was other than asked for, and what should be known."""
    told: dict[str, Any] = {"width": settings.width, "height": settings.height, "notes": notes}
    told["flags"] = list(settings.flags)
    told |= {"memory": settings.memory, "batched": batched}
    if settings.asked is not None:
        told["fallback"] = {"kind": "size", "asked": list(settings.asked)}
    return told
