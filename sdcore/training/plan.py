"""Everything that decides a training beside model and data: declared once, checked once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from sdcore.errors import InputError, unknown
from sdcore.options import option, options_of

METHODS = ("lora", "full", "dreambooth", "embedding")
TARGETS = ("attention", "transformer", "all")
SAVED = ("float16", "bfloat16", "float32")
WHAT, DATA, LOSS, LENGTH, LOOK = "What is trained", "Data", "Loss", "Steps", "Looking and saving"
_RATES = {"lora": 1e-4, "full": 1e-5, "dreambooth": 5e-6, "embedding": 5e-4}
_TEXT_RATES = {"lora": 5e-5, "full": 2e-6, "dreambooth": 2e-6, "embedding": 0.0}
_STEPS = {"lora": 2000, "full": 2000, "dreambooth": 800, "embedding": 3000}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A training. What is None is left to the method, or to the model."""

    method: str = option(
        "lora; full; dreambooth: full with class pictures; embedding: a new word.", WHAT, "lora",
        metavar="NAME",
    )  # fmt: skip
    rank: int = option("Of a LoRA.", WHAT, 16, kind=int)
    alpha: float | None = option(
        "Its scale is alpha / rank.  [default: the rank]", WHAT, kind=float
    )
    dropout: float = option("Share of a LoRA's rank left out in a step.", WHAT, 0.0, kind=float)
    targets: str = option(
        "Layers: attention; transformer; all, with the convolutions of the residual blocks.",
        WHAT, "transformer", metavar="NAME",
    )  # fmt: skip
    dora: bool = option("Train magnitudes by themselves (DoRA).", WHAT, False, kind=bool)
    text: bool = option("Train the text encoders too.", WHAT, False, kind=bool,
                        flag="--train-text", also=("--train-text-encoder",))  # fmt: skip
    word: str | None = option(
        "The word that is learned; it stands for the vectors.", WHAT, metavar="WORD",
        also=("--placeholder-token", "--token"),
    )  # fmt: skip
    init: str | None = option(
        "What it begins as.  [default: the mean of all words]", WHAT, metavar="TEXT",
        also=("--initializer-token",),
    )  # fmt: skip
    vectors: int = option("How many it is.", WHAT, 1, kind=int, also=("--num-vectors",))

    caption: str | None = option(
        "For pictures that have none.", DATA, metavar="TEXT", also=("--instance-prompt",)
    )
    resolution: int | None = option(
        "Side of a square of as many pixels.  [default: the model's]", DATA, kind=int
    )
    square: bool = option(
        "Crop to a square.  [default: sizes by aspect ratio]", DATA, False, kind=bool,
        also=("--no-buckets",),
    )  # fmt: skip
    bucket_step: int | None = option(
        "Sides are multiples of it.  [default: an eighth of the resolution]", DATA, kind=int
    )
    flip: bool = option("Mirror at random.", DATA, False, kind=bool)
    caption_dropout: float = option(
        "Share of looks at a picture without its caption.", DATA, 0.05, kind=float
    )
    class_prompt: str | None = option(
        "What else there is of its kind, to be kept as it is.", DATA, metavar="TEXT"
    )
    class_dir: str | None = option(
        "Pictures of that.  [default: drawn by the model]", DATA, metavar="FOLDER",
        also=("--class-data-dir",),
    )  # fmt: skip
    class_pictures: int = option(
        "How many of them.", DATA, 100, kind=int, also=("--num-class-images",)
    )
    prior_weight: float = option(
        "Of their loss.", DATA, 1.0, kind=float, also=("--prior-loss-weight",)
    )

    prediction_type: str | None = option(
        "epsilon, v_prediction, sample.  [default: the model's]", LOSS, metavar="NAME"
    )
    min_snr: float = option(
        "Gamma of the min-SNR weights; 0 is off.", LOSS, 5.0, kind=float, also=("--snr-gamma",)
    )
    noise_offset: float = option("Of each picture's mean.", LOSS, 0.0, kind=float)
    zero_snr: bool = option(
        "A schedule that ends in pure noise (v only).", LOSS, False, kind=bool,
        also=("--zero-terminal-snr",),
    )  # fmt: skip

    steps: int | None = option(
        "Updates of the weights.  [default: the method's]", LENGTH, kind=int,
        also=("--max-train-steps",),
    )  # fmt: skip
    epochs: int | None = option(
        "Or looks at the whole data.", LENGTH, kind=int, also=("--num-train-epochs",)
    )
    batch: int = option(
        "Pictures looked at together.", LENGTH, 1, kind=int, also=("--train-batch-size",)
    )
    accumulate: int = option(
        "Batches to an update.", LENGTH, 1, kind=int, also=("--gradient-accumulation-steps",)
    )
    lr: float | None = option(
        "Learning rate.  [default: the method's]", LENGTH, kind=float, also=("--learning-rate",)
    )
    text_lr: float | None = option(
        "Of the text encoders.  [default: the method's]",
        LENGTH,
        kind=float,
        also=("--text-encoder-lr",),
    )
    schedule: str = option(
        "constant, linear, cosine.", LENGTH, "cosine", metavar="NAME", also=("--lr-scheduler",)
    )
    warmup: float = option(
        "Steps in which the rate rises; below 1 a share of all.", LENGTH, 0.05, kind=float,
        also=("--lr-warmup-steps",),
    )  # fmt: skip
    optimizer: str = option(
        "adamw; adamw8bit, prodigy (extra `train`).", LENGTH, "adamw", metavar="NAME"
    )
    weight_decay: float = option("AdamW's.", LENGTH, 0.01, kind=float)
    max_grad_norm: float = option("A gradient is cut to it; 0: never.", LENGTH, 1.0, kind=float)
    ema: float = option(
        "Decay of an average of the weights, which is what is kept; 0: none.", LENGTH, 0.0,
        kind=float,
    )  # fmt: skip
    checkpointing: bool = option(
        "Less memory, more time: activations are computed twice.", LENGTH, False, kind=bool,
        also=("--gradient-checkpointing",),
    )  # fmt: skip
    seed: int = option("Of all chance.", LENGTH, 0, kind=int)

    layout: str = option(
        "kohya (a model: one file), or diffusers (a folder).", LOOK, "kohya", metavar="NAME"
    )
    save_dtype: str = option("Of what is written.", LOOK, "float16", metavar="NAME")
    save_every: int = option(
        "Steps from one checkpoint to the next.", LOOK, 250, kind=int,
        also=("--checkpointing-steps",),
    )  # fmt: skip
    look_every: int | None = option(
        "Steps from one measurement with pictures to the next.  [default: a tenth]", LOOK, kind=int
    )
    prompts: tuple[str, ...] = option(
        "Of the pictures drawn then; may be repeated.  [default: two captions]", LOOK, (),
        flag="--prompt", also=("--validation-prompt",), many=True,
    )  # fmt: skip
    draw_steps: int | None = option(
        "Steps that they are drawn in.  [default: the model's]", LOOK, kind=int
    )
    grid: int = option("Noise levels at which the loss is measured then.", LOOK, 8, kind=int)

    def __post_init__(self) -> None:
        _check(self)

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    @property
    def rate(self) -> float:
        """The learning rate; Prodigy finds it, and is told how much of what it finds."""
        if self.lr is not None:
            return self.lr
        return 1.0 if self.optimizer == "prodigy" else _RATES[self.method]

    @property
    def text_rate(self) -> float:
        if self.text_lr is not None:
            return self.text_lr
        return 1.0 if self.optimizer == "prodigy" else _TEXT_RATES[self.method]

    @property
    def trains_text(self) -> bool:
        """Whether what the text encoders say changes under way."""
        return self.text or self.method == "embedding"

    @property
    def has_prior(self) -> bool:
        return self.class_prompt is not None

    def total(self, batches: int) -> int:
        """Steps of the whole training. batches: of an epoch."""
        if self.epochs is not None:
            return max(1, self.epochs * batches // self.accumulate)
        return _STEPS[self.method] if self.steps is None else self.steps

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `as_dict` gave, as JSON has it."""
        known = {f.name for f in fields(cls)}
        there: dict[str, Any] = {name: value for name, value in values.items() if name in known}
        there["prompts"] = tuple(there.get("prompts", ()))
        return cls(**there)

    def differs(self, other: Plan) -> list[str]:
        """The options that make another training of it; how long, and how it is looked at, do not.

        Only where the learning rate does not depend on the end is what comes out equal then.
        """
        free = {"steps", "epochs", "layout", "save_dtype"}
        names = [name for name, (_, o) in options_of(Plan).items() if o.group != LOOK]
        return [n for n in names if n not in free and getattr(self, n) != getattr(other, n)]


def _check(plan: Plan) -> None:
    """Raises InputError for what is out of range, or contradicts itself."""
    from sdcore.adapters import LAYOUTS  # torch, which the command's help does without
    from sdcore.process import known_prediction_type
    from sdcore.training.optimizer import OPTIMIZERS, SCHEDULES

    for name, known in (
        ("method", METHODS), ("targets", TARGETS), ("layout", LAYOUTS), ("save_dtype", SAVED),
        ("schedule", SCHEDULES), ("optimizer", OPTIMIZERS),
    ):  # fmt: skip
        if getattr(plan, name) not in known:
            raise unknown(name.replace("_", " "), str(getattr(plan, name)), known)
    if plan.prediction_type is not None:
        known_prediction_type(plan.prediction_type)
    least = {
        **dict.fromkeys(("rank", "vectors", "batch", "accumulate", "save_every", "grid"), 1),
        **dict.fromkeys(
            ("steps", "epochs", "look_every", "draw_steps", "class_pictures", "bucket_step"), 1
        ),
        **dict.fromkeys(("lr", "text_lr", "warmup", "weight_decay", "max_grad_norm"), 0),
        **dict.fromkeys(("min_snr", "noise_offset", "prior_weight", "seed"), 0),
    }
    for name, low in least.items():
        value = getattr(plan, name)
        if value is not None and not (low <= value < math.inf):
            raise InputError(f"{name} is a number of at least {low}, not {value}")
    for name in ("dropout", "caption_dropout", "ema"):
        if not 0 <= getattr(plan, name) < 1 and not (name == "caption_dropout" and
                                                     plan.caption_dropout == 1):  # fmt: skip
            raise InputError(f"{name} is a share, 0 to 1, not {getattr(plan, name)}")
    if plan.alpha is not None and not 0 < plan.alpha < math.inf:
        raise InputError(f"alpha is a number above 0, not {plan.alpha}")
    if plan.steps is not None and plan.epochs is not None:
        raise InputError("steps and epochs both say how long: give one")
    for name, high in (("seed", 2**63 - 1), ("grid", 1000)):
        if getattr(plan, name) > high:
            raise InputError(f"{name} is a number of at most {high}, not {getattr(plan, name)}")
    if plan.method == "embedding" and not (plan.word or "").strip():
        raise InputError("which word is learned? Give --word, e.g. --word '<cat-toy>'")
    word = plan.word or ""
    if not set("()[]\\").isdisjoint(word) or not word.isprintable() or word != word.strip():
        raise InputError(
            f"--word {word!r} is none of a prompt: no brackets, no \\, no space around it"
        )
    if plan.method != "embedding" and (plan.word or plan.init):
        raise InputError("--word and --init are of --method embedding")
    if plan.method == "dreambooth" and not (plan.caption and plan.class_prompt):
        raise InputError(
            "dreambooth needs --caption, e.g. 'a photo of sks dog', and --class-prompt, e.g. 'a "
            "photo of a dog'"
        )
    if plan.class_dir is not None and plan.class_prompt is None:
        raise InputError("--class-dir needs a --class-prompt that says what it shows")
    if plan.dora and plan.method != "lora":
        raise InputError("--dora is of --method lora")


def with_defaults(plan: Plan, prediction_type: str, side: int) -> Plan:
    """The plan with what the model decides filled in: its prediction type, its resolution."""
    from sdcore.process import known_prediction_type

    said = known_prediction_type(plan.prediction_type or prediction_type)
    if plan.zero_snr and said != "v_prediction":
        raise InputError(
            f"--zero-snr is for v_prediction only: this is {said}, whose target says nothing of "
            "the picture where there is nothing but noise"
        )
    resolution = side if plan.resolution is None else plan.resolution
    return replace(plan, prediction_type=said, resolution=resolution)
