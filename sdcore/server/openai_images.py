"""OpenAI's images API: /v1/images/generations, /v1/images/edits and /v1/models.

Beside its own fields it takes what other servers of local models add (negative_prompt,
num_inference_steps, guidance_scale, seed) and every option of `sdcore.picture_options` by its name;
the SDK sends them by extra_body. What it does not know is ignored, as there: clients send much.
What it knows and cannot honour is refused by name.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.responses import Response

from sdcore.picture_form import Form
from sdcore.server.answers import Json, refusal
from sdcore.server.asked import FIELDS, picture
from sdcore.server.jobs import Job
from sdcore.server.options import ServerOptions
from sdcore.server.previews import Previews
from sdcore.server.refusals import Failed, Refused
from sdcore.server.results import Result, begun, encoded, ended, form_of
from sdcore.server.sse import Sent, stream
from sdcore.server.values import Real, Whole
from sdcore.server.worker import Worker

MOST_IMAGES = 16  # of an edit, as there
_SIZE = re.compile("([0-9]{1,5})x([0-9]{1,5})")
_OURS = {"num_inference_steps": "steps", "guidance_scale": "cfg", "negative_prompt": "negative"}
_ELSEWHERE = {  # words of sdcore's that this face does not take, and what says the same here
    "prompts": "prompt", "seeds": "seed and n", "count": "n", "latents": "seed",
}  # fmt: skip
_IGNORED = ("quality", "style", "input_fidelity")  # that change a picture there, and not here


class Generation(BaseModel):
    """What is asked for."""

    model_config = ConfigDict(extra="allow")

    prompt: str
    model: str | None = None
    n: Annotated[Whole, Field(ge=1, le=10)] | None = None
    size: str | None = None  # "auto": the model's own, or the picture's
    response_format: Literal["url", "b64_json"] | None = None  # url: a data URL
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: Annotated[Whole, Field(ge=0, le=100)] | None = None
    background: Literal["auto", "opaque", "transparent"] | None = None
    stream: bool | None = None
    partial_images: Annotated[Whole, Field(ge=0, le=3)] | None = None
    negative_prompt: str | None = None
    num_inference_steps: Whole | None = None
    guidance_scale: Real | None = None
    seed: Whole | None = None


class Edit(Generation):
    """The same beside pictures: data URLs here, files in a form."""

    images: list[dict[str, Any]] | None = None
    mask: Any = None  # transparent where it is painted anew


def router(worker: Worker, options: ServerOptions) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1")

    @routes.get("/models")
    async def models() -> Response:
        """Every model."""
        listed = [_model(name) for name in worker.models.places]
        return Json({"object": "list", "data": listed})

    @routes.get("/models/{name:path}")
    async def model(name: str) -> Response:
        """One model."""
        return Json(_model(worker.models.model_named(name)))

    @routes.post("/images/generations")
    async def generations(asked: Generation, request: Request) -> Response:
        """Pictures of a prompt."""
        return await _answered(worker, options, asked, {}, request, "image_generation")

    schema = {"multipart/form-data": {"schema": _FORM},
              "application/json": {"schema": Edit.model_json_schema()}}  # fmt: skip

    @routes.post("/images/edits", openapi_extra={"requestBody": {"content": schema}})
    async def edits(request: Request) -> Response:
        """A picture drawn anew, or where its mask is transparent."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().casefold()
        if kind == "multipart/form-data":
            asked, pictures, mask = await _of_form(request, worker)
        else:
            asked, pictures, mask = await _of_json(request)
        given = await run_in_threadpool(_canvas, pictures, mask, worker)
        return await _answered(worker, options, asked, given, request, "image_edit")

    return routes


_FORM = {
    "type": "object",
    "required": ["prompt", "image"],
    "properties": {
        "prompt": {"type": "string"},
        "image": {"type": "string", "format": "binary"},
        "mask": {"type": "string", "format": "binary"},
        "n": {"type": "integer"},
        "size": {"type": "string"},
    },
}


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "sdcore"}


# --- what is asked for ---------------------------------------------------------------------------


def _fields(asked: Generation, given: Mapping[str, Any]) -> dict[str, Any]:
    """In sdcore's words. Raises Refused."""
    if asked.background == "transparent":
        raise Refused("a transparent background cannot be drawn", param="background")
    extra = asked.model_extra or {}
    for name, instead in _ELSEWHERE.items():
        if extra.get(name) is not None:
            raise Refused(f"{name} is not taken here: {instead} is", param=name)
    fields: dict[str, Any] = {name: extra[name] for name in FIELDS if extra.get(name) is not None}
    for theirs, ours in _OURS.items():
        if getattr(asked, theirs) is not None:
            if ours in fields:
                raise Refused(f"{theirs} and {ours} say the same: give one", param=theirs)
            fields[ours] = getattr(asked, theirs)
    if asked.size not in (None, "", "auto"):
        size = _SIZE.fullmatch(str(asked.size))
        if size is None:
            raise Refused('size is "auto" or like "512x768"', param="size")
        for side in ("width", "height"):
            if side in fields:
                raise Refused(f"size and {side} say the same: give one", param=side)
        fields |= {"width": int(size[1]), "height": int(size[2])}
    count = {} if asked.n in (None, 1) else {"count": asked.n}
    named = {"prompt": asked.prompt, "model": asked.model, "seed": asked.seed}
    return {**fields, **count, **named, **given}


def _canvas(pictures: list[tuple[str, Any]], mask: Any, worker: Worker) -> dict[str, Any]:
    """The picture of an edit and its mask, white where it is painted anew."""
    if not pictures:
        raise Refused("an edit needs an image", param="image")
    if len(pictures) > 1:
        raise Refused(f"an edit here is of one image, not of {len(pictures)}", param="image")
    name, raw = pictures[0]
    image = picture(name, raw, worker.limits)
    given: dict[str, Any] = {"image": image}
    if mask is not None:
        over = picture("mask", mask, worker.limits)
        if not over.has_transparency_data:
            raise Refused("the mask has no transparent pixels, where it is painted anew",
                          param="mask")  # fmt: skip
        from PIL import ImageOps

        given["mask"] = ImageOps.invert(over.convert("RGBA").getchannel("A"))
    return given


async def _of_form(
    request: Request, worker: Worker
) -> tuple[Generation, list[tuple[str, Any]], Any]:
    """The fields of a multipart form, and its files."""
    form = await request.form(
        max_files=MOST_IMAGES + 2, max_fields=200, max_part_size=worker.limits.body
    )
    fields: dict[str, Any] = {}
    pictures: list[tuple[str, Any]] = []
    mask = None
    for name, value in form.multi_items():
        content = await value.read() if isinstance(value, UploadFile) else value
        if name in ("image", "image[]"):
            pictures.append(("image", content))
        elif name == "mask":
            mask = content
        elif isinstance(content, bytes):
            raise Refused(f"{name[:80]} is a file, and a text is wanted", param=name[:80])
        else:
            fields[name] = _typed(name, content)
    await form.close()
    return _checked(Generation, fields), pictures, mask


def _typed(name: str, text: str) -> Any:
    """A field of a form in the type that JSON would give it."""
    if name in ("prompt", "negative_prompt", "negative", "model", "size"):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


async def _of_json(request: Request) -> tuple[Generation, list[tuple[str, Any]], Any]:
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise Refused("the body is no JSON") from None
    if not isinstance(body, dict):
        raise Refused("the body is a JSON object")
    asked = _checked(Edit, body)
    pictures = [("images", _data_of(each)) for each in asked.images or ()]
    return asked, pictures, None if asked.mask is None else _data_of(asked.mask)


def _data_of(named: Any) -> Any:
    """{"image_url": data URL}; files of an id are not kept here."""
    url = named.get("image_url") if isinstance(named, dict) else None
    if not isinstance(url, str):
        raise Refused('a picture is {"image_url": "data:image/png;base64,..."}', param="images")
    return url


def _checked(kind: type, fields: Mapping[str, Any]) -> Any:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:200]
        raise Refused(f"{where}: {first['msg']}", param=where.partition(".")[0]) from None


# --- what is answered ----------------------------------------------------------------------------


async def _answered(
    worker: Worker,
    options: ServerOptions,
    asked: Generation,
    given: Mapping[str, Any],
    request: Request,
    kind: str,
) -> Response:
    wanted = _fields(asked, given)
    notes = [f"{name} is not followed" for name in _IGNORED if (asked.model_extra or {}).get(name)]
    form = _form(options, asked)
    if asked.stream:
        if asked.n not in (None, 1):
            raise Refused("a stream is of one picture", param="n")
        previews = Previews(asked.partial_images or 0, worker.filters)
        job = await begun(worker, wanted, "openai", previews if previews.count else None, form)
        return stream(_events(worker, options, asked, job, kind))
    job = await begun(worker, wanted, "openai", form=form)
    result = await ended(worker, job, request)
    return Json(await _body(worker, options, asked, result, notes))


async def _body(
    worker: Worker, options: ServerOptions, asked: Generation, result: Result, notes: list[str]
) -> dict[str, Any]:
    data = []
    for one in result.drawings:
        text = await _text(worker, options, asked, one)
        how = asked.output_format or "png"
        as_url = asked.response_format == "url"
        shown = {"url": f"data:image/{how};base64,{text}"} if as_url else {"b64_json": text}
        data.append({**shown, "seed": one.settings.seed, "flags": list(one.flags)})
    return {
        "created": int(time.time()),
        "data": data,
        **_described(asked, *result.drawings[0].size),
        "sdcore": {"notes": [*notes, *result.notes], "batched": result.batched},
    }


def _described(asked: Generation, width: int, height: int) -> dict[str, str]:
    return {
        "background": "opaque",
        "output_format": asked.output_format or "png",
        "quality": "auto",
        "size": f"{width}x{height}",
    }


def _form(options: ServerOptions, asked: Generation) -> Form:
    return form_of(options, asked.output_format or "png", asked.output_compression)


async def _text(worker: Worker, options: ServerOptions, asked: Generation, one: Any) -> str:
    data = await encoded(worker, one, options, _form(options, asked))
    return base64.b64encode(data).decode("ascii")


async def _events(
    worker: Worker, options: ServerOptions, asked: Generation, job: Job, kind: str
) -> AsyncIterator[Sent]:
    """The partial pictures as they come, then the whole one; a closed stream ends the job."""
    try:
        async for event in job.follow():
            if event.kind == "preview":
                yield _sent(f"{kind}.partial_image", asked, event.data["picture"],
                            {"b64_json": event.data["base64"],
                             "partial_image_index": event.data["index"]})  # fmt: skip
        if job.error is not None or job.result is None:
            error = Failed("it was cancelled") if job.error is None else job.error
            status = getattr(error, "status", 422)
            answer = refusal("/v1/", status, str(error), getattr(error, "param", None))
            yield Sent({"type": "error", **json.loads(bytes(answer.body))}, "error")
            return
        one = job.result[0]
        text = await _text(worker, options, asked, one)
        yield _sent(f"{kind}.completed", asked, one.shown, {"b64_json": text, "usage": _USAGE})
    finally:
        worker.cancel(job)
        worker.forget(job)


# Nothing is sold here by tokens; the SDK's type wants the numbers.
_USAGE = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0,
          "input_tokens_details": {"image_tokens": 0, "text_tokens": 0}}  # fmt: skip


def _sent(kind: str, asked: Generation, image: Any, more: Mapping[str, Any]) -> Sent:
    told = {"type": kind, "created_at": int(time.time()), **_described(asked, *image.size)}
    return Sent({**told, **more}, kind)
