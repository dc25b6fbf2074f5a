"""`sdcore train`: a model learns from pictures."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdcore.cli.echo import echo, tell
from sdcore.cli.grouped import Grouped
from sdcore.cli.option_list import Spelt, declared
from sdcore.errors import InputError, unknown
from sdcore.options import Option, options_of
from sdcore.picture_options import Source
from sdcore.training.plan import DATA, LENGTH, LOOK, LOSS, WHAT, Plan

if TYPE_CHECKING:
    from sdcore.strict_yaml import Node, Table
    from sdcore.training.updates import TrainStep

MODEL = "Model"
_MODEL = ("model", "device", "dtype", "vae", "unet", "text_encoder", "text_encoder_2", "variant",
          "revision", "ema")  # fmt: skip
_RENAMED = {"ema": "model_ema"}  # the plan has an --ema of its own
_PLACES = ("data_dir", "out", "name", "config")


def _planned(name: str, option: Option, default: Any) -> click.Option:
    """An option of the plan. What is not given is None, for a configuration to say."""
    flag = f"--{name.replace('_', '-')}" if option.flag is None else option.flag
    silent = default is None or default is False or default in ((), MISSING)  # 0 is told
    shown = "" if silent else f"  [default: {default}]"
    more: Any = {"help": option.help + shown, "default": None}
    if option.kind is bool:
        return Spelt((flag, *option.also, name), is_flag=True, **more)
    more |= {"type": option.kind, "metavar": option.metavar, "multiple": option.many}
    return Spelt((flag, *option.also, name), **more)


def _groups() -> dict[str, list[click.Option]]:
    groups: dict[str, list[click.Option]] = {t: [] for t in (WHAT, DATA, LOSS, LENGTH, LOOK, MODEL)}
    for name, (field, option) in options_of(Plan).items():
        groups[option.group].append(_planned(name, option, field.default))
    for name, (_, option) in options_of(Source).items():
        if name in _MODEL and name not in _RENAMED:
            groups[MODEL].append(declared(name, option))
    return groups


@click.command(cls=Grouped, groups=_groups())
@click.argument("folder", metavar="DIR", required=False)
@click.option("--data-dir", metavar="DIR", help="The same as DIR.")
@click.option(
    "--out", metavar="FOLDER", help="Where all of it goes.  [default: trained/NAME of DIR]"
)
@click.option("--name", metavar="NAME", help="Of the result.  [default: that of --out]")
@click.option("--config", metavar="FILE", help="YAML with any of these options by their names.")
@click.pass_context
def train(ctx: click.Context, **given: Any) -> None:
    """Train a model on the pictures in DIR, and print the path of what came out.

    DIR holds pictures with captions: metadata.jsonl or .csv with file_name and text, .txt or
    .caption files beside the pictures, or folders named 10_words for ten looks at each. Stop it
    when you like: the same command goes on. Several GPUs: torchrun --nproc-per-node 2 -m sdcore
    train.
    """
    options = _with_config(ctx, given)
    folder = options["folder"] or options["data_dir"]
    if not folder:
        raise InputError("which pictures? sdcore train DIR")
    if options["folder"] and options["data_dir"]:
        raise InputError("DIR and --data-dir both say where the pictures are: give one")
    named = {name: options[name] for name in options_of(Plan) if options[name] not in (None, ())}
    plan = Plan(**named)

    from sdcore.loading import load
    from sdcore.paths import path_of
    from sdcore.training.ranks import ToldByFirst, join
    from sdcore.training.signals import Stopped
    from sdcore.training.train import train as trained

    source = {n: options[n][-1] for n in _MODEL if n in options and options[n] not in (None, ())}
    ranks, source["device"] = join(source.get("device"))
    try:
        networks = load(**{"dtype": _usual_dtype(source["device"]), "memory": "fast",
                           "engine": "plain", **source})  # fmt: skip
        out = options["out"] or Path("trained") / Path(folder).resolve().name
        with _Bars(ranks.first) as bars:
            path = trained(
                networks, folder, plan, out, name=options["name"], tell=bars.tell, watcher=bars,
                ranks=ranks,
            )  # fmt: skip
        if ranks.first:
            tell(f"{path_of(out) / 'report.html'} shows how it went")
            echo(path)
    except Stopped as stopped:
        if ranks.first:
            tell(str(stopped))
        ctx.exit(130)
    except ToldByFirst:  # torchrun ends every process when one fails: the first must have spoken
        ctx.exit(0)
    finally:
        ranks.close()


def _usual_dtype(device: str | None) -> str:
    """What a frozen base is held in: bfloat16 on a GPU; what is trained is float32 anyway."""
    import torch

    from sdcore.devices import choose_device

    cuda = choose_device(device).type == "cuda"
    return "bfloat16" if cuda and torch.cuda.is_bf16_supported() else "float32"


# --- a configuration -----------------------------------------------------------------------------


def _with_config(ctx: click.Context, given: Mapping[str, Any]) -> dict[str, Any]:
    """What was typed, and for the rest what the file says. Raises InputError, naming file and key.

    Every value goes through its option's own type: YAML takes 1e-4 for a text.
    """
    options = dict(given)
    if options["config"] is None:
        return options
    known: dict[str, click.Option] = {}
    for param in ctx.command.params:
        if isinstance(param, click.Option) and param.name not in ("config", "help"):
            for spelling in (str(param.name), *param.opts):
                known[spelling.lstrip("-").replace("_", "-")] = param
    table = _read_yaml(options["config"])
    for key, node in table.values.items():
        where = f"{options['config']}, line {table.lines[key]}"
        param = known.get(key.lstrip("-").replace("_", "-"))
        if param is None:
            raise InputError(f"{where}: {unknown('option', key, sorted(known))}")
        value = _typed(f"{where}: {key}", param, node, ctx)
        if options.get(str(param.name)) in (None, ()) and value is not None:
            options[str(param.name)] = value
    return options


def _read_yaml(file: str) -> Table:
    from sdcore.paths import path_of
    from sdcore.strict_yaml import parse

    try:
        return parse(path_of(file).read_text(encoding="utf-8"), file)
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{file} is no UTF-8 text") from None


def _typed(where: str, param: click.Option, node: Node, ctx: click.Context) -> Any:
    from sdcore.strict_yaml import Items, Scalar

    nodes = node.items if isinstance(node, Items) else (node,)
    texts = [each.text for each in nodes if isinstance(each, Scalar) and each.text is not None]
    if not all(isinstance(each, Scalar) for each in nodes):
        raise InputError(f"{where} takes a value, and not a list of options")
    if len(texts) > 1 and not param.multiple:
        raise InputError(f"{where} takes one value, not {len(texts)}")
    if not texts:
        return None
    if param.is_flag:
        if texts[0] not in ("true", "false"):
            raise InputError(f"{where} is true or false, not {texts[0]!r}")
        return texts[0] == "true"
    try:
        return param.type_cast_value(ctx, texts if param.multiple else texts[0])
    except click.BadParameter as error:
        raise InputError(f"{where}: {error.message}") from None


# --- how far it is -------------------------------------------------------------------------------


class _Bars:
    """Progress bars on a terminal; elsewhere a line now and then."""

    EVERY = 10.0  # seconds between two lines

    def __init__(self, shown: bool) -> None:
        self.terminal = shown and sys.stderr.isatty()
        self.shown, self._steps, self._told, self._mean = shown, None, time.monotonic(), None

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_: object) -> None:
        if self._steps is not None:
            self._steps.close()

    def bar(self, what: str, things: Sequence[Any]) -> Iterable[Any]:
        if not self.terminal or not things:
            return things
        from tqdm import tqdm

        return tqdm(things, desc=what, leave=False)

    def tell(self, line: str) -> None:
        """A remark, above a bar that may be there."""
        if self._steps is not None:
            self._steps.clear()
        tell(line)

    def step(self, step: TrainStep, total: int) -> None:
        self._mean = step.loss if self._mean is None else 0.98 * self._mean + 0.02 * step.loss
        if self.terminal:
            from tqdm import tqdm

            if self._steps is None:
                self._steps = tqdm(total=total, initial=step.step - 1, desc="training")
            self._steps.set_postfix_str(f"loss {self._mean:.4f}", refresh=False)
            self._steps.update()
        elif self.shown and (time.monotonic() - self._told > self.EVERY or step.step == total):
            tell(f"step {step.step} of {total}, loss {self._mean:.4f}")
            self._told = time.monotonic()
