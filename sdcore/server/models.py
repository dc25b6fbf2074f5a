"""The models, adapters and learned words that a server has, by name; and the models in memory.

What there is is listed once, at start. A request names one of the list, and no path.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdcore.errors import InputError, unknown
from sdcore.server.refusals import Missing
from sdcore.strengths import parse_lora, written_lora
from sdcore.written import FILES

if TYPE_CHECKING:
    from sdcore.networks import Networks
    from sdcore.settings import Settings

Loras = tuple[tuple[str, float, float], ...]  # name, strength in the UNet, in the text encoders
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Choice:
    """Which networks, by names of the lists."""

    model: str
    loras: Loras = ()
    embeddings: tuple[str, ...] = ()


class Models:
    """What a server has.

    places: of the models, by name; the first is the default. loras, embeddings: files, by name.
    source: how models are loaded: device, dtype, memory, engine.
    most: how many are in memory at once, those with adapters apart; the one not used for the
    longest time goes first.
    hidden: whether pictures name them without their folders.

    `networks`, `refiner` and `settle` are called by the worker's thread alone, the rest by any.
    """

    def __init__(
        self,
        places: Mapping[str, str],
        loras: Mapping[str, str] | None = None,
        embeddings: Mapping[str, str] | None = None,
        source: Mapping[str, Any] | None = None,
        most: int = 1,
        hidden: bool = False,
    ) -> None:
        self.places, self.source = dict(places), dict(source or {})
        self.loras, self.embeddings = dict(loras or {}), dict(embeddings or {})
        self.most, self.hidden = most, hidden
        self._loaded: OrderedDict[str, Networks] = OrderedDict()
        self._overlaid: tuple[Choice, Networks] | None = None
        self._modes: dict[str, str] = {}  # of memory, where a faster one was too much

    @property
    def default(self) -> str:
        return next(iter(self.places))

    @property
    def loaded(self) -> tuple[str, ...]:
        """The models in memory, the one used last at the end."""
        return tuple(self._loaded)

    def choice(self, model: str | None = None) -> Choice:
        """A model by its name, without adapters; None: the default. Raises Missing."""
        return Choice(self.model_named(model))

    def peek(self, name: str) -> Networks | None:
        """The model without adapters, where it is in memory."""
        return self._loaded.get(name)

    def model_named(self, name: str | None) -> str:
        """The model of this name in any case; None or "": the default. Raises Missing."""
        return self.default if name in (None, "") else _named("model", str(name), self.places)

    def lora_named(self, name: str) -> str:
        """Raises Missing."""
        return _named("LoRA", name, self.loras)

    def embedding_named(self, name: str) -> str:
        """Raises Missing."""
        return _named("embedding", name, self.embeddings)

    def word_of(self, name: str) -> str:
        """How a learned word is written in prompts: as its file is called, as in A1111."""
        return name.rpartition("/")[2]

    def refiner(self, name: str | None, of: Choice) -> Networks | None:
        """The second model of one picture, beside the first, which stays in memory. None: none."""
        return None if name is None else self.networks(Choice(name), beside=of.model)

    def networks(
        self, choice: Choice, tell: Tell = lambda line: None, beside: str | None = None
    ) -> Networks:
        """The networks, loaded where they are not in memory. Raises InputError.

        beside: a model that is not dropped for them, though it be one more than `most`.
        """
        from sdcore.loading import load

        name = choice.model
        if name not in self._loaded:
            droppable = [each for each in self._loaded if each != beside]
            for each in droppable[: max(0, len(self._loaded) + 1 - max(1, self.most))]:
                self._drop(each)
            tell(f"loading {name}")
            source: dict[str, Any] = self.source | (
                {"memory": self._modes[name]} if name in self._modes else {}
            )
            self._loaded[name] = load(self.places[name], **source)
        self._loaded.move_to_end(name)
        if choice == Choice(name):
            return self._loaded[name]
        if self._overlaid is None or self._overlaid[0] != choice:
            self._overlaid = None
            self._overlaid = choice, self._with_overlays(self._loaded[name], choice)
        return self._overlaid[1]

    def _with_overlays(self, networks: Networks, choice: Choice) -> Networks:
        from sdcore.adapters import joined, open_embedding, with_embedding, with_lora

        words = [
            open_embedding(self.embeddings[name], self.word_of(name)) for name in choice.embeddings
        ]
        for word in joined(words):
            networks = with_embedding(networks, word)
        for name, unet, text in choice.loras:
            networks = with_lora(networks, self.loras[name], unet=unet, text=text)
        return replace(networks, untouched={})

    def settle(self, choice: Choice, networks: Networks) -> None:
        """Take note of the mode of memory that a job ended in: a leaner one stays."""
        before = self._loaded.get(choice.model)
        if before is not None and networks.memory != before.memory:
            self._modes[choice.model] = networks.memory
            self._drop(choice.model)

    def _drop(self, name: str) -> None:
        from sdcore.free_memory import give_back

        del self._loaded[name]
        if self._overlaid is not None and self._overlaid[0].model == name:
            self._overlaid = None
        give_back()

    def bare(self, text: str) -> str:
        """A line that is told, where folders are hidden with names for the places of the lists."""
        if self.hidden:
            places = [(str(place), name) for of in (self.embeddings, self.loras, self.places)
                      for name, place in of.items() if Path(place).is_absolute()]  # fmt: skip
            for place, name in sorted(places, reverse=True):  # the longest of two that begin alike
                text = text.replace(place, name)
        return text

    def shown(self, settings: Settings) -> Settings:
        """The settings as they go into a picture: without folders where these are hidden."""
        if not self.hidden:
            return settings
        names = {
            str(place): name
            for of in (self.embeddings, self.loras, self.places)
            for name, place in of.items()
        }

        def bare(text: str) -> str:
            for place, name in sorted(names.items(), reverse=True):  # the longest first
                text = text.replace(place, name)
            return text

        def digest_bare(line: str) -> str:
            digest, _, file = line.partition(" ")
            named = bare(file)
            outside = named == file and (file.endswith(FILES) or Path(file).is_absolute())
            return f"{digest} {_without_folders(file) if outside else named}"

        loras = [(parse_lora(spec)) for spec in settings.loras]
        refiner = settings.refiner
        return replace(
            settings,
            model=names.get(str(settings.model), settings.model),
            refiner=None if refiner is None else names.get(refiner, refiner),
            loras=tuple(written_lora(names.get(path, path), *both) for path, *both in loras),
            embeddings=tuple(map(bare, settings.embeddings)),
            filters=tuple(map(_without_folders, settings.filters)),
            digests=tuple(map(digest_bare, settings.digests)),
        )


def _without_folders(text: str) -> str:
    """A file, or a written form, whose files are named without their folders.

    >>> _without_folders("/srv/mine.py:check,words=/srv/my/words.txt")
    'mine.py:check,words=words.txt'
    """
    return re.sub(r"""(^|[=,"'])(?:[^/\\,="']*[/\\])+""", r"\1", text)


def _named(what: str, name: str, known: Mapping[str, str]) -> str:
    by_case = {each.casefold(): each for each in known}
    if name.casefold() not in by_case:
        raise Missing(str(unknown(what, name, known)), param="model" if what == "model" else None)
    return by_case[name.casefold()]


def listed_models(given: Sequence[str], tell: Tell = lambda line: None) -> dict[str, str]:
    """Name -> place, of what `--models` names: bundled names, files, folders, hub ids that are
    here, and folders of several. Nothing: the bundled ones.

    tell: gets a line for each file in a folder of several that is no model. Raises InputError.
    """
    from sdcore.checkpoints.find import bundled_models, is_here
    from sdcore.paths import path_of

    places: dict[str, str] = {}
    for each in given or tuple(bundled_models()):
        path = path_of(each)
        if each not in bundled_models() and path.is_dir() and not _is_model(path):
            inside = list(_models_in(path, tell))
            if not inside:
                raise InputError(f"{path} holds no model")
            for name, place in inside:
                _add(places, name, str(place))
        elif is_here(each):
            _add(places, _short_name(each), each)
        else:
            raise InputError(
                f"{each} is not here: sdcore download {each}, or name a file or folder"
            )
    return places


def _is_model(folder: Path) -> bool:
    return (folder / "model_index.json").is_file()


def _models_in(folder: Path, tell: Tell) -> Iterator[tuple[str, Path]]:
    from sdcore.checkpoints import open_source
    from sdcore.checkpoints.find import WEIGHT_SUFFIXES

    for path in sorted(folder.iterdir()):
        if path.is_dir() and _is_model(path):
            yield path.name, path
        elif path.is_file() and path.suffix.lower() in WEIGHT_SUFFIXES:
            try:
                open_source(str(path), {})
            except InputError as error:
                tell(f"left out: {error}")
            else:
                yield path.stem, path


def listed_files(folders: Sequence[str], bundled: Mapping[str, Path]) -> dict[str, str]:
    """Name -> file, of every file of weights in these folders. Raises InputError for no folder."""
    from sdcore.checkpoints.library import weights_in

    places: dict[str, str] = {name: name for name in bundled}
    for path, inside in weights_in(folders):
        _add(places, inside, str(path))
    return places


def _short_name(place: str) -> str:
    from sdcore.a1111 import bare
    from sdcore.checkpoints.find import is_hub_id
    from sdcore.paths import path_of

    return place if is_hub_id(place) and not path_of(place).exists() else bare(place)


def _add(places: dict[str, str], name: str, place: str) -> None:
    """Under another name where this one is taken: name-2, name-3 ..."""
    count, free = 1, name
    while free.casefold() in {each.casefold() for each in places}:
        count += 1
        free = f"{name}-{count}"
    places[free] = place
