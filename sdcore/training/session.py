"""One training, from its first step or from where it stands: steps taken, looked at and saved."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sdcore.adapters import twin
from sdcore.errors import InputError
from sdcore.free_memory import give_back, is_out_of_memory
from sdcore.images import to_png
from sdcore.models.layers import ResnetBlock
from sdcore.models.unet import TransformerBlock
from sdcore.networks import Networks
from sdcore.training.batches import Batches
from sdcore.training.checkpoint import last_checkpoint, load_checkpoint, save_checkpoint
from sdcore.training.full import FullTraining
from sdcore.training.grid import Grid, grid_of
from sdcore.training.home import REPORT, SAMPLES
from sdcore.training.latents import Item
from sdcore.training.lora import LoRATraining
from sdcore.training.notes import notes_of
from sdcore.training.optimizer import Average, optimizer_of
from sdcore.training.order import Order
from sdcore.training.pictures import drawn, sheet
from sdcore.training.plan import Plan
from sdcore.training.process import process_and_schedule
from sdcore.training.ranks import Ranks, ToldByFirst
from sdcore.training.record import LOG, Look, Record
from sdcore.training.report import write_report
from sdcore.training.resting import Resting
from sdcore.training.signals import Stop, Stopped, stopping
from sdcore.training.steps import Trainer, checkpointed, modules_in_training
from sdcore.training.updates import TrainStep
from sdcore.training.watcher import Tell, Watcher
from sdcore.training.word import WordTraining
from sdcore.writing import write_whole

METHODS = {"lora": LoRATraining, "full": FullTraining, "dreambooth": FullTraining,
           "embedding": WordTraining}  # fmt: skip


@dataclass
class Session:
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
        self.record, self.done = Record(self.place / LOG), 0
        new = self.trained.networks
        readers = [reader.encoder for reader in new.readers] if plan.trains_text else []
        every = {id(m): m for each in (self.networks, new) for m in each.modules.values()}
        self.resting = Resting(every.values(), [new.unet, *readers])

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
        """Every step that is left, and the result's path. Raises as `train` does."""
        grid = Grid(grid_of(self.items, self.schedule, self.plan.grid, self.plan.seed),
                    self.process).begun(self.trained.networks)  # fmt: skip
        self.done = self._loaded()
        with self.ranks.together():
            if self.ranks.first:
                self.record = Record.read(self.place / LOG, self.done)
                if not self.record.looks:
                    self._look(0, grid, self.networks)
        if self.done >= self.total:
            self.tell(f"all {self.total} steps have been taken already: more are --steps")
        modules_in_training(self.trained.networks, True)
        with stopping() as stop, self.aside():
            self._go_on(grid, stop)
        return self._finished(self.place / self.name, grid)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """In here nothing lies in memory that no step asks: captions have been read before."""
        texts = [text for item in (*self.items, *self.prior_items) for text in
                 (*item.example.captions, self.batches.empty)]  # fmt: skip
        read = self.watcher.bar("reading captions", list(dict.fromkeys(texts)))
        self.trainer.conditions.remember(read)
        with self.resting.aside():
            yield

    def _go_on(self, grid: Grid, stop: Stop) -> None:
        """The steps that are left; where one goes wrong, what was before it is saved."""
        out_of_memory = False
        try:
            for step in self.trainer.steps(self.done):
                self.done = step.step
                self._noted(step, grid)
                if self.ranks.any(stop.asked) and self.done < self.total:
                    self._save()
                    raise Stopped(self.done, self.total, self.place)
        except InputError:
            self._save_if_whole()
            raise
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            out_of_memory = True
        if out_of_memory:  # outside of the except clause, whose traceback holds on to tensors
            raise self._no_memory()

    def _noted(self, step: TrainStep, grid: Grid) -> None:
        """A step that was taken, in the log; looked at and saved where it is time to."""
        plan, done, last = self.plan, step.step, step.step == self.total
        every = plan.look_every or max(1, -(-self.total // 10))
        with self.ranks.together():
            if self.ranks.first:
                self.record.add(step)
                self.watcher.step(step, self.total)
                if not last and done % every == 0:
                    with self.resting.back():
                        self._written_look(grid)
        if done % plan.save_every == 0 or last:
            self._save()

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

    def _save(self) -> None:
        """By the first process alone."""
        with self.ranks.together():
            if self.ranks.first:
                t = self.trainer
                save_checkpoint(self.place, self.done, t.parameters, t.optimizer, t.average)

    def _save_if_whole(self) -> None:
        """Where something went wrong: the state after the last step, unless the next had begun to
        change it."""
        if self.done and not self.trainer.updates.updating:
            self._save()

    def _no_memory(self) -> InputError:
        self.trainer.optimizer.zero_grad(set_to_none=True)
        give_back()
        self._save_if_whole()
        batch, side = self.plan.batch, self.plan.resolution
        leaner = [f"--batch 1 --accumulate {batch * self.plan.accumulate}"] * (batch > 1)
        leaner += ["--checkpointing"] * (not self.plan.checkpointing)
        leaner += ["--dtype bfloat16"] * (self.networks.dtype == torch.float32)
        text = (
            f"out of memory on {self.networks.device} at step {self.done + 1}, for {batch} "
            f"pictures of {side}x{side}: take {', '.join([*leaner, 'a smaller --resolution'])}"
        )
        return InputError(text) if self.ranks.first else ToldByFirst(text)

    def _notes(self, step: int) -> dict[str, str]:
        epoch = step * self.plan.accumulate // len(self.batches)
        return notes_of(self.networks, self.plan, self.items, step, epoch, self.name)

    def _written_look(self, grid: Grid) -> None:
        """Measure, and draw with what would be the result if this were the last step."""
        with self.trainer.average:
            path = self.place / f"{self.name}-{self.done:06d}"
            if self.plan.method in ("lora", "embedding"):
                path = self.trained.write(path, self._notes(self.done))
            self._look(self.done, grid, self.trained.drawing(path))

    def _look(self, step: int, grid: Grid, drawing: Networks) -> None:
        name = f"{SAMPLES}/{step:06d}.png"
        (self.place / SAMPLES).mkdir(exist_ok=True)
        pictures = drawn(drawing, self.prompts, **self._how())
        write_whole(self.place / name, to_png(sheet(pictures)))
        self.record.add(Look(step, grid.measure(self.trained.networks), name))
        origin = f"{self.networks.name} on {len(self.items)} pictures"
        write_report(self.place / REPORT, self.name, self.plan, self.total, self.record, origin)

    def _how(self) -> dict[str, Any]:
        """Drawn at the size that is trained at, as far as the VAE's factor allows."""
        factor = self.networks.vae.config.factor
        assert self.plan.resolution is not None
        side = max(factor, self.plan.resolution // factor * factor)
        return {"width": side, "height": side, "steps": self.plan.draw_steps}

    def _finished(self, result: Path, grid: Grid) -> Path:
        path = result
        with self.ranks.together():
            if self.ranks.first:
                with self.trainer.average:
                    path = self._written(result)
                    self._look(self.done, grid, self.trained.drawing(path))
        return path

    def _written(self, result: Path) -> Path:
        """The result in place of an earlier one, which goes only when the new one is there."""
        there = [result, result.with_name(f"{result.name}.safetensors")]
        if self.plan.method in ("lora", "embedding"):
            return self.trained.write(result, self._notes(self.done))
        olds = {}
        for path in filter(Path.exists, there):
            old = path.with_name(f"{path.name}.old")
            shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink(True)
            olds[path] = path.rename(old)
        try:
            written = self.trained.write(result, self._notes(self.done))
        except BaseException:
            for path, old in olds.items():
                old.rename(path)
            raise
        for old in olds.values():
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        return written
