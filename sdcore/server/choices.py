"""What there is to choose from, what a choice comes to before anything is drawn, and what the
settings inside a picture ask for here."""

# pyright: reportMissingImports=false

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body
from starlette.concurrency import run_in_threadpool

from sdcore.a1111 import read as read_infotext
from sdcore.errors import InputError
from sdcore.guidance import GUIDANCES, resolve, sources_of
from sdcore.images import KEY, texts_of
from sdcore.picture_options import OPTIONS
from sdcore.schedulers import SPACINGS, TABLE, TOOLS
from sdcore.schedulers.rehearsal import TooMany
from sdcore.server.answers import Json
from sdcore.server.asked import Asked, picture, read
from sdcore.server.drawings import completed, passes
from sdcore.server.jobs import Job
from sdcore.server.native import short
from sdcore.server.refusals import Refused
from sdcore.server.step_events import colours_of
from sdcore.server.studies import study_of
from sdcore.server.worker import Worker
from sdcore.settings import Settings
from sdcore.strengths import parse_lora
from sdcore.trust import check_inherited
from sdcore.written import Written, format_value
from sdcore.written import format as written_form

if TYPE_CHECKING:
    from sdcore.networks import Networks

Given = Annotated[dict[str, Any], Body()]
# Of a picture's settings, what a form does not take over: it belongs to the machine or the file.
_NOT_ASKED = ("device", "dtype", "memory", "engine", "latents")


def router(worker: Worker) -> APIRouter:
    """The routes."""
    routes = APIRouter()

    @routes.get("/models")
    async def models() -> Any:
        """Models, adapters and learned words, by the names that a request may say."""
        has = worker.models
        lists = {"models": list(has.places), "loras": list(has.loras)}
        return Json({**lists, "embeddings": list(has.embeddings), "default": has.default})

    @routes.get("/models/{name:path}")
    async def model(name: str) -> Any:
        """What a model draws by itself, and the colours of its latents. It is loaded for that."""
        return Json(await short(worker, worker.models.choice(name), _describe))

    @routes.get("/schedulers")
    async def schedulers() -> Any:
        """Solvers: order of convergence, evaluations a step, whether they draw noise, paper."""
        return Json(
            [
                {
                    "name": entry.name,
                    "order": entry.order,
                    "nfe": entry.nfe,
                    "stochastic": entry.stochastic,
                    "eta": entry.eta,
                    "paper": entry.paper,
                    "also": list(entry.labels),
                }
                for entry in TABLE
            ]
        )

    @routes.get("/spacings")
    async def spacings() -> Any:
        """Where the steps are: ours, and each tool's."""
        own = [{"name": name, "what": what} for name, what in SPACINGS.items()]
        tools = [{"name": f"{key}:{name}", "what": f"as {tool.label} lays it"}
                 for key, tool in TOOLS.items() for name in tool.spacings]  # fmt: skip
        return Json(own + tools)

    @routes.get("/guidances")
    async def guidances() -> Any:
        """Guidances with their options as they are written, evaluations a step, paper; those that
        need no second model, which a program alone can bring."""
        return Json(
            [
                {
                    "name": name,
                    "written": written_form(Written(name, entry.options)),
                    "options": {key: format_value(value) for key, value in entry.options.items()},
                    "nfe": len(resolve(name).branches(1.0)),
                    "paper": entry.paper,
                    "what": entry.what,
                }
                for name, entry in GUIDANCES.items()
                if not any(source.model for source in sources_of(resolve(name)).values())
            ]
        )

    @routes.post("/plan")
    async def plan(asked: Given) -> Any:
        """The steps of a request, and their evaluations, before anything runs. nfe in place of
        steps: as many steps as take no more evaluations than that."""
        wanted = asked.pop("nfe", None)
        words = {"prompt": "", "seed": 0}
        request = await run_in_threadpool(  # it may hold a picture
            read, {**words, **asked}, worker.models, worker.limits
        )
        if wanted is not None and (isinstance(wanted, bool) or not isinstance(wanted, int)):
            raise Refused("nfe is a whole number", param="nfe")
        if wanted is not None and wanted < 1:
            raise Refused("nfe is at least 1", param="nfe")

        def work(networks: Networks, jobs: Sequence[Job]) -> None:
            jobs[0].result = _planned(worker, request, networks, wanted)

        return Json(await short(worker, request.choice, work))

    @routes.post("/settings")
    async def settings(asked: Given) -> Any:
        """{"picture": base64} or {"run": id}: what its settings ask for, by the names of a request,
        and a line for each thing that cannot be followed here."""
        if (id := asked.get("run")) is not None:
            drawn = study_of(worker.find(str(id))).settings
            if drawn is None:
                raise Refused("the run has not begun: it has no settings yet", param="run")
            texts = {KEY: drawn.to_json()}
        else:
            texts = await run_in_threadpool(
                lambda: texts_of(picture("picture", asked.get("picture"), worker.limits))
            )
        values, left = _settings(worker, texts)
        return Json({"values": values, "left": left})

    return routes


def _describe(networks: Networks, jobs: Sequence[Job]) -> None:
    family, factor = networks.family, networks.vae.config.factor
    height, width = (side * factor for side in networks.unet.config.sides)
    jobs[0].result = {
        "name": jobs[0].choice.model,
        "width": width,
        "height": height,
        "multiple": factor,
        "steps": family.steps,
        "cfg": family.cfg,
        "repaints": family.inpaints,
        "prediction_type": networks.prediction_type,
        "device": str(networks.device),
        "dtype": networks.precision,
        "colours": colours_of(networks.vae),
    }


# --- plans ---------------------------------------------------------------------------------------


def _planned(worker: Worker, asked: Asked, networks: Networks, nfe: int | None) -> dict[str, Any]:
    refiner = worker.models.refiner(asked.refiner, asked.choice)

    def at(steps: int | None) -> tuple[Settings, list[dict[str, Any]]]:
        request = asked.request if steps is None else replace(asked.request, steps=steps)
        whole = replace(asked, request=request)
        settings, parts = completed(whole, networks, worker.limits, refiner)
        rows, last = [], 0.0
        for _, plan, run in passes(settings, parts, networks, worker.limits):
            for step in run:
                t = plan.timestep(step.sigma)
                rows.append({"sigma": step.sigma, "t": t, "nfe": step.nfe})
                last = step.sigma_next
        rows.append({"sigma": last, "t": None, "nfe": 0})
        return settings[0], rows

    if nfe is None:
        settings, rows = at(None)
    else:
        low, high = 1, worker.limits.steps  # NFE never falls as steps rise
        while low < high:
            middle = (low + high + 1) // 2
            try:
                spent = _spent(at(middle)[1])
            except TooMany:
                spent = nfe + 1
            except InputError:  # so few that none of them is left to run
                spent = 0
            low, high = (middle, high) if spent <= nfe else (low, middle - 1)
        settings, rows = at(low)
    return {
        "scheduler": settings.scheduler,
        "spacing": settings.spacing,
        "eta": settings.eta,
        "steps": len(rows) - 1,  # that run
        "asked_steps": settings.steps,  # a picture to start from leaves some out, hires adds some
        "cfg": settings.cfg,
        "nfe": _spent(rows),
        "rows": rows,
    }


def _spent(rows: Sequence[Mapping[str, Any]]) -> int:
    return sum(row["nfe"] for row in rows)


# --- settings of a picture -----------------------------------------------------------------------


def _settings(worker: Worker, texts: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """By the names of a request, without what only its owner may name. Raises InputError."""
    if KEY in texts:
        old = Settings.from_json(texts[KEY])
        values = {name: getattr(old, name) for name in OPTIONS}
        values |= {"prompt": old.prompt, "negative": old.negative, "seed": old.seed}
        left = [f"it was changed on its way, {each}" for each in old.changes]
    elif "parameters" in texts:
        info = read_infotext(texts["parameters"])
        values = {name: value for name, value in info.options.items() if name in OPTIONS}
        values |= {"prompt": info.prompt, "negative": info.negative, "model": info.model}
        values |= {"seed": None if info.seed == -1 else info.seed}
        values["loras"] = tuple(f"{name}:unet={unet},text={text}"
                                for name, unet, text in info.loras)  # fmt: skip
        left = list(info.warnings)
    else:
        raise InputError("it holds no settings of sdcore's, and no `parameters` of A1111")
    taken: dict[str, Any] = {}
    for name, value in values.items():
        unsaid = value is None or value is False or value == ()  # 0 is said: seed 0 is a seed
        if unsaid or (value == "" and name in OPTIONS):
            continue
        try:
            taken |= _one(worker, name, value, left)
        except InputError as error:
            left.append(str(error))
    return taken, left


def _one(worker: Worker, name: str, value: Any, left: list[str]) -> dict[str, Any]:
    """What is taken over of one option. Raises InputError for what a stranger may not name."""
    if name in _NOT_ASKED:
        return {}
    if name in ("image", "mask"):
        left.append(f"{name}: it began with a picture, which is not in it: give it again")
        return {}
    if name in ("model", "refiner"):
        known = _known(value, worker.models.places)
        if known is None:
            left.append(f"{name}: {_bare(value)} is not among the models of this server")
        return {} if known is None else {name: known}
    if name in ("loras", "embeddings"):
        return {name: _listed(worker, name, value, left)}
    if name in ("vae", "unet", "text_encoder", "text_encoder_2", "variant", "revision", "ema"):
        left.append(f"{name}: a server draws with its models as they are")
        return {}
    if name not in ("prompt", "negative"):
        check_inherited({name: value})
    finite = not isinstance(value, float) or math.isfinite(value)
    return {name: value} if finite else {}


def _listed(worker: Worker, kind: str, specs: Sequence[str], left: list[str]) -> list[str]:
    """Adapters or words that are here, under their names."""
    known = worker.models.loras if kind == "loras" else worker.models.embeddings
    names = []
    for spec in specs:
        if kind == "loras":
            place, unet, text = parse_lora(spec)
            ending = f":unet={unet},text={text}"
        else:
            place, ending = (spec.rpartition(":")[0] or spec), ""
        name = _known(place, known) or (_known(spec, known) if kind == "embeddings" else None)
        if name is None:
            left.append(f"{kind}: {_bare(place)} is not here")
        else:
            names.append(f"{name}{ending}")
    return names


def _known(place: str, places: Mapping[str, str]) -> str | None:
    """The name of what a picture calls by its place, or by its name."""
    if place in places:
        return place
    return next((name for name, known in places.items() if known == place), None)


def _bare(place: str) -> str:
    """Without folders: what a picture says is shown, and nothing is looked up."""
    return place.replace("\\", "/").rpartition("/")[2][:80]
