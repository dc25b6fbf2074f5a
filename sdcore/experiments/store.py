"""Drawn cells in a folder: NAME.png, and NAME.safetensors with the latents, which comes last."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from sdcore.errors import InputError
from sdcore.experiments.cells import Drawing
from sdcore.images import open_picture, save_png
from sdcore.settings import Settings
from sdcore.strict_json import parse
from sdcore.writing import write_whole

KEY = "sdcore_drawing"


class Store:
    """A folder of drawings by name; made when the first is put into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, name: str) -> Drawing | None:
        """What was put under this name; None where there is none, or not all of it."""
        try:
            with safe_open(self.folder / f"{name}.safetensors", "pt") as file:
                facts = parse((file.metadata() or {})[KEY])
                latents = file.get_tensor("latents")
            settings = Settings.from_json(facts["settings"])
            nfe, draws, seconds = (facts[each] for each in ("nfe", "draws", "seconds"))
            picture = open_picture(self.picture(name), ("PNG",)).convert("RGB")
        except (SafetensorError, OSError, InputError, KeyError, TypeError):
            return None
        return Drawing(picture, latents, settings, int(nfe), int(draws), float(seconds))

    def put(self, name: str, drawing: Drawing) -> None:
        """Write both files, each whole. Raises InputError where that cannot be."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {self.folder}: {error.strerror}") from None
        facts = {"nfe": drawing.nfe, "draws": drawing.draws, "seconds": drawing.seconds}
        facts["settings"] = drawing.settings.to_json()
        save_png(drawing.picture, self.picture(name), drawing.settings)
        data = save({"latents": drawing.latents.contiguous()}, {KEY: json.dumps(facts)})
        write_whole(self.folder / f"{name}.safetensors", data)

    def picture(self, name: str) -> Path:
        return self.folder / f"{name}.png"
