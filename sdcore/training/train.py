"""A whole training: data read and counted, steps taken, looked at and saved, the result written.

OUT/plan.json                      what was asked for
OUT/latents.safetensors            the pictures, encoded
OUT/log.jsonl                      every step, every measurement
OUT/checkpoint-000250.safetensors  where it stands; the same command goes on from there
OUT/samples/000250.png             pictures drawn on the way
OUT/NAME.safetensors               the result, and as NAME-000250 what the pictures show
OUT/report.html                    all of it to look at
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from sdcore.adapters import twin
from sdcore.errors import InputError, listed
from sdcore.free_memory import give_back, is_out_of_memory
from sdcore.images import to_png
from sdcore.models.layers import ResnetBlock
from sdcore.models.reordered import restore
from sdcore.models.unet import TransformerBlock
from sdcore.networks import Networks
from sdcore.paths import check_folder, path_of
from sdcore.training.batches import Batches
from sdcore.training.checkpoint import last_checkpoint, load_checkpoint, save_checkpoint
from sdcore.training.folder import PLAN, Example, Skipped, read_folder
from sdcore.training.full import FullTraining
from sdcore.training.grid import Grid, grid_of
from sdcore.training.latents import CACHE, Item, encoded
from sdcore.training.lora import LoRATraining
from sdcore.training.notes import notes_of
from sdcore.training.optimizer import Average, optimizer_of
from sdcore.training.order import Order
from sdcore.training.pictures import drawn, sheet
from sdcore.training.plan import Plan, with_defaults
from sdcore.training.prior import class_pictures
from sdcore.training.process import check_trainable, process_and_schedule, readied
from sdcore.training.ranks import Ranks
from sdcore.training.record import LOG, Look, Record
from sdcore.training.report import write_report
from sdcore.training.signals import Stopped, stopping
from sdcore.training.steps import Trainer, TrainStep, checkpointed, modules_in_training
from sdcore.training.word import WordTraining, templates, with_word
from sdcore.writing import write_whole

REPORT = "report.html"
METHODS = {"lora": LoRATraining, "full": FullTraining, "dreambooth": FullTraining,
           "embedding": WordTraining}  # fmt: skip
Tell = Callable[[str], None]


class Watcher(Protocol):
    """Whoever shows how far it is."""

    def bar(self, what: str, things: Sequence[Any]) -> Iterable[Any]:
        """The things, one after another."""
        ...

    def step(self, step: TrainStep, total: int) -> None: ...


class Silent:
    """Nobody."""

    def bar(self, what: str, things: Sequence[Any]) -> Iterable[Any]:
        return things

    def step(self, step: TrainStep, total: int) -> None:
        pass


def train(
    networks: Networks,
    folder: str | Path,
    plan: Plan,
    out: str | Path,
    *,
    name: str | None = None,
    tell: Tell = lambda line: None,
    watcher: Watcher | None = None,
    ranks: Ranks | None = None,
) -> Path:
    """Train on the pictures of a folder, and return the path of what came out.

    What an earlier call with the same plan has left in `out` is gone on from.

    Args:
        networks: not changed.
        out: a folder; made where it is not there.
        name: of the result; None: the folder's.
        tell: gets a line for whatever should be known: counts, pictures passed over.

    Raises:
        InputError: data that cannot be trained on, a model that is not trained, another plan's
            training in `out`, too little memory, a loss that is no number. Where steps had been
            taken they are saved.
        Stopped: by the user; it is saved.
    """
    watcher = Silent() if watcher is None else watcher
    ranks = Ranks() if ranks is None else ranks
    tell = tell if ranks.first else lambda line: None
    check_trainable(networks)
    factor = networks.vae.config.factor
    side = max(networks.unet.config.sides) * factor
    plan = with_defaults(plan, networks.prediction_type, side)
    networks = readied(networks, plan)
    for module in networks.modules.values():
        restore(module)  # what drew with it may have laid its weights for itself
    examples, skipped = _examples(folder, plan, tell)
    place = path_of(out)
    if ranks.first:
        _opened(place, plan, _origins(networks, examples))
    ranks.wait()
    name = (place.name or "trained") if name is None else name
    items, prior = _items(networks, examples, skipped, plan, place, tell, watcher, ranks)
    session = _Session(networks, plan, place, name, items, prior, tell, watcher, ranks)
    return session.run()


# --- the data ------------------------------------------------------------------------------------


def _origins(networks: Networks, examples: Sequence[Example]) -> dict[str, str]:
    """Digests of what a training is made of beside its plan: the model's files, and the data."""
    files = sorted(networks.digests.items())
    data = [(each.path.name, each.path.stat().st_size, each.captions, each.repeats)
            for each in examples]  # fmt: skip
    return {
        name: hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
        for name, told in (("model", files), ("set of pictures", data))
    }


def _opened(place: Path, plan: Plan, origins: dict[str, str]) -> None:
    """The folder of a training, new or of the same plan, model and data.

    Raises InputError for another's.
    """
    there = place / PLAN
    if there.is_file():
        try:
            held = json.loads(there.read_text())
            other, begun = Plan.from_dict(held), held.get("of", origins)
            differs = plan.differs(other)
            changed = [name for name in origins if begun.get(name) != origins[name]]
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{there} is garbled: {error}") from None
        if differs:
            told = ", ".join(f"{n} {getattr(other, n)}" for n in differs[:4])
            raise InputError(
                f"{place} holds another training ({told}): go on with that, or name another --out"
            )
        if changed:
            raise InputError(
                f"{place} holds a training of another {' and another '.join(changed)}: go on with "
                "the same, or name another --out"
            )
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {place}: {error.strerror}") from None
    check_folder(place)
    text = json.dumps({**plan.as_dict(), "of": origins}, indent=2)
    write_whole(there, (text + "\n").encode())


def _examples(folder: str | Path, plan: Plan, tell: Tell) -> tuple[list[Example], list[Skipped]]:
    """The pictures of the folder, and what is passed over; their captions hold the new word."""
    if plan.word is None:
        examples, skipped = read_folder(folder, plan.caption)
    else:
        usual = "\0"  # no caption is one
        examples, skipped = read_folder(folder, plan.caption or usual)
        said = templates(plan.word)
        examples = [replace(e, captions=said) if e.captions == (usual,) else e for e in examples]
        examples, added = with_word(examples, plan.word)
        if added:
            tell(f"{plan.word} was put before {added} captions that lacked it")
    if not examples:
        _tell_skipped(skipped, tell)
        raise _nothing(folder, skipped)
    return examples, skipped


def _tell_skipped(skipped: Sequence[Skipped], tell: Tell) -> None:
    for each in skipped:
        tell(f"{each.path} is passed over: {each.reason}")


def _nothing(folder: str | Path, skipped: Sequence[Skipped]) -> InputError:
    reasons = listed("passed over", [f"{s.path.name} ({s.reason})" for s in skipped], most=2)
    return InputError(f"{folder} holds no picture to train on; {reasons or 'it holds no file'}")


def _items(
    networks: Networks, examples: list[Example], skipped: list[Skipped], plan: Plan, place: Path,
    tell: Tell, watcher: Watcher, ranks: Ranks,
) -> tuple[list[Item], list[Item]]:  # fmt: skip
    """The pictures, and those of the class; counted and told before anything is learned."""

    def encode(examples: list[Example], cache: str, what: str) -> tuple[list[Item], list[Skipped]]:
        return encoded(
            examples, networks, plan, place / cache, lambda things: watcher.bar(what, things)
        )

    prior: list[Item] = []
    for first in (True, False):  # the first process writes the caches, the others read them
        if ranks.first == first:
            items, more = encode(examples, CACHE, "encoding")
            if plan.has_prior:
                bar = lambda things: watcher.bar("drawing the class", things)  # noqa: E731
                classes = class_pictures(networks, plan, place / "class", bar)
                prior, _ = encode(classes, f"class-{CACHE}", "encoding the class")
        ranks.wait()
    skipped = [*skipped, *more]
    _tell_skipped(skipped, tell)
    if not items:
        raise _nothing(examples[0].path.parent, skipped)
    _tell_counts(networks, items, prior, len(skipped), plan, tell)
    return items, prior


def _tell_counts(
    networks: Networks, items: list[Item], prior: list[Item], skipped: int, plan: Plan, tell: Tell
) -> None:
    looks = sum(item.example.repeats for item in items)
    sizes: dict[str, int] = {}
    for item in items:
        key = f"{item.size[0]}x{item.size[1]}"
        sizes[key] = sizes.get(key, 0) + 1
    captions = {text for item in items for text in item.example.captions}
    tell(
        f"{len(items)} pictures, {looks} looks an epoch, {len(captions)} captions, {skipped} "
        f"passed over; sizes: {', '.join(f'{k} ({n})' for k, n in sorted(sizes.items()))}"
    )
    if prior:
        tell(f"{len(prior)} pictures of the class, {plan.class_prompt!r}")
    if small := sum(item.enlarged for item in items):
        tell(f"{small} of them are smaller than what they are trained at, and were enlarged")
    tokenizer = networks.readers[0].tokenizer
    if cut := [text for text in captions if tokenizer(text).cut]:
        tell(f"{len(cut)} captions are longer than {tokenizer.length - 2} tokens, and are cut")


# --- the training --------------------------------------------------------------------------------


@dataclass
class _Session:
    """One training, from its first step or from where it stands."""

    networks: Networks
    plan: Plan
    place: Path
    name: str
    items: list[Item]
    prior_items: list[Item]
    tell: Tell
    watcher: Watcher
    ranks: Ranks

    def __post_init__(self) -> None:
        plan, (self.process, self.schedule) = self.plan, process_and_schedule(self.networks)
        self.trained = METHODS[plan.method](self.networks, plan)
        if plan.checkpointing:
            unet = twin(self.trained.networks.unet)
            checkpointed(unet, (TransformerBlock, ResnetBlock))
            self.trained.networks = self.trained.networks.with_modules({"unet": unet})
        groups = self.trained.groups
        parameters = [p for group in groups for p in group.parameters]
        self.batches = self._batches(self.items, 0)
        self.total = plan.total(len(self.batches))
        self.trainer = Trainer(
            trained=self.trained,
            plan=plan,
            process=self.process,
            batches=self.batches,
            optimizer=optimizer_of(plan.optimizer, groups, plan.weight_decay),
            average=Average(parameters, plan.ema),
            total=self.total,
            prior=self._batches(self.prior_items, 1) if self.prior_items else None,
            ranks=self.ranks,
        )
        self.prompts = plan.prompts or tuple(
            dict.fromkeys(item.example.captions[0] for item in self.items)
        )[:2]  # fmt: skip

    def _batches(self, items: list[Item], stream: int) -> Batches:
        plan = self.plan
        order = Order(
            tuple(item.size for item in items), tuple(item.example.repeats for item in items),
            plan.batch * self.ranks.count, plan.seed + 7919 * stream,
        )  # fmt: skip
        return Batches(
            items, order, self.schedule, plan.seed, plan.caption_dropout,
            None if self.networks.zero_empty else "", plan.noise_offset, stream,
        )  # fmt: skip

    def run(self) -> Path:
        grid = Grid(grid_of(self.items, self.schedule, self.plan.grid, self.plan.seed),
                    self.process).begun(self.trained.networks)  # fmt: skip
        done = self._loaded()
        self.record = Record.read(self.place / LOG, done) if self.ranks.first else Record(
            self.place / LOG)  # fmt: skip
        if not self.record.looks and self.ranks.first:
            self._look(0, grid, self.networks)
        result = self.place / self.name
        if done >= self.total:
            self.tell(f"all {self.total} steps have been taken already: more are --steps")
        modules_in_training(self.trained.networks, True)
        every = self.plan.look_every or max(1, -(-self.total // 10))
        with ExitStack() as stack:
            stop = stack.enter_context(stopping())
            try:
                for step in self.trainer.steps(done):
                    done = step.step
                    if self.ranks.first:
                        self.record.add(step)
                        self.watcher.step(step, self.total)
                    last = done == self.total
                    if not last and done % every == 0:
                        self._written_look(done, grid)
                    if done % self.plan.save_every == 0 or last:
                        self._save(done)
                    if self.ranks.any(stop.asked, self.networks.device) and not last:
                        self._save(done)
                        raise Stopped(done, self.total, self.place)
            except InputError:
                self._save_if_whole(done)
                raise
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                out_of_memory = True
            else:
                out_of_memory = False
        if out_of_memory:  # outside of the except clause, whose traceback holds on to tensors
            raise self._no_memory(done)
        return self._finished(result, grid)

    # --- what is written -------------------------------------------------------------------------

    def _loaded(self) -> int:
        """How many steps have been taken before."""
        path = last_checkpoint(self.place)
        if path is None:
            return 0
        t = self.trainer
        done = load_checkpoint(path, t.parameters, t.optimizer, t.average)
        self.tell(f"going on after step {done} of {self.total}, from {path}")
        return done

    def _save(self, step: int) -> None:
        if self.ranks.first:
            t = self.trainer
            save_checkpoint(self.place, step, t.parameters, t.optimizer, t.average)
        self.ranks.wait()

    def _save_if_whole(self, step: int) -> None:
        """Where something went wrong: the state after the last step, unless the next had begun to
        change it."""
        if step and not self.trainer.updating and self.ranks.first:
            t = self.trainer
            save_checkpoint(self.place, step, t.parameters, t.optimizer, t.average)

    def _no_memory(self, step: int) -> InputError:
        self.trainer.optimizer.zero_grad(set_to_none=True)
        give_back()
        self._save_if_whole(step)
        batch, side = self.plan.batch, self.plan.resolution
        leaner = [f"--batch 1 --accumulate {batch * self.plan.accumulate}"] * (batch > 1)
        leaner += ["--checkpointing"] * (not self.plan.checkpointing)
        leaner += ["--dtype bfloat16"] * (self.networks.dtype == torch.float32)
        return InputError(
            f"out of memory on {self.networks.device} at step {step + 1}, for {batch} pictures of "
            f"{side}x{side}: take {', '.join([*leaner, 'a smaller --resolution'])}"
        )

    def _notes(self, step: int) -> dict[str, str]:
        epoch = step * self.plan.accumulate // len(self.batches)
        return notes_of(self.networks, self.plan, self.items, step, epoch, self.name)

    def _written_look(self, step: int, grid: Grid) -> None:
        """Measure, and draw with what would be the result if this were the last step."""
        if self.ranks.first:
            with self.trainer.average:
                path = self.place / f"{self.name}-{step:06d}"
                if self.plan.method in ("lora", "embedding"):
                    path = self.trained.write(path, self._notes(step))
                self._look(step, grid, self.trained.drawing(path))
        self.ranks.wait()

    def _look(self, step: int, grid: Grid, drawing: Networks) -> None:
        name = f"samples/{step:06d}.png"
        (self.place / "samples").mkdir(exist_ok=True)
        pictures = drawn(drawing, self.prompts, **self._how())
        write_whole(self.place / name, to_png(sheet(pictures)))
        self.record.add(Look(step, grid.measure(self.trained.networks), name))
        write_report(self.place / REPORT, self.name, self.plan, self.total, self.record)

    def _how(self) -> dict[str, Any]:
        """Drawn at the size that is trained at, as far as the VAE's factor allows."""
        factor = self.networks.vae.config.factor
        assert self.plan.resolution is not None
        side = max(factor, self.plan.resolution // factor * factor)
        return {"width": side, "height": side, "steps": self.plan.draw_steps}

    def _finished(self, result: Path, grid: Grid) -> Path:
        path = result
        if self.ranks.first:
            with self.trainer.average:
                path = self._written(result)
                self._look(self.total, grid, self.trained.drawing(path))
        self.ranks.wait()
        return path

    def _written(self, result: Path) -> Path:
        """The result in place of an earlier one, which goes only when the new one is there."""
        there = [result, result.with_name(f"{result.name}.safetensors")]
        if self.plan.method in ("lora", "embedding"):
            return self.trained.write(result, self._notes(self.total))
        olds = []
        for path in there:
            if path.exists():
                old = path.with_name(f"{path.name}.old")
                shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink(True)
                path.rename(old)
                olds.append(old)
        path = self.trained.write(result, self._notes(self.total))
        for old in olds:
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        return path
