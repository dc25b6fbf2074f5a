"""A checkpoint as data, whatever its layout: what it consists of, nothing loaded yet."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdcore.checkpoints.parameter_names import Spelling
from sdcore.errors import InputError

CLIP_WORDS = 49408  # in CLIP's vocabulary


@dataclass(frozen=True)
class Component:
    """One network of a checkpoint: its configuration, the files of its weights, their names."""

    name: str  # "unet", "vae", "text_encoder" ...
    config: dict[str, Any]  # in the fields of a published config.json
    config_path: Path  # where that stands; the weights' own file where it is derived from them
    files: tuple[Path, ...]  # safetensors, several where the checkpoint is sharded
    spelling: Spelling  # from a key in the files to the module's parameters in it


@dataclass(frozen=True)
class Checkpoint:
    """A whole model: the networks, the folders of its tokenizers, its scheduler's configuration."""

    path: Path
    index: dict[str, Any]  # model_index.json; {} for a single file, but for those of `convert`
    components: dict[str, Component]
    tokenizers: dict[str, Path]  # "tokenizer" -> folder
    scheduler: dict[str, Any]  # scheduler_config.json, {} where the checkpoint has none
    pad_tokens: dict[str, str] = field(default_factory=dict)  # by encoder, where no folder says it
    notes: tuple[str, ...] = ()  # what had to be guessed or was passed over, one line each
    lacking: Mapping[str, Component] = field(default_factory=dict)  # what a file leaves to others
    added_words: Mapping[str, int] = field(default_factory=dict)  # id by word, beside the folder's

    @property
    def speaks_clip(self) -> bool:
        """Whether its first text encoder has as many words as CLIP's vocabulary."""
        encoders = [c for name, c in self.components.items() if name.startswith("text_encoder")]
        sizes = [encoder.config.get("vocab_size", CLIP_WORDS) for encoder in encoders[:1]]
        return all(size == CLIP_WORDS + len(self.added_words) for size in sizes)

    def vocabulary(
        self, encoder: str = "text_encoder"
    ) -> tuple[Path, str | None, Mapping[str, int]]:
        """A text encoder's tokenizer folder, what it pads with (None: as the folder says), and
        words that its vocabulary has beyond those of the folder.

        Raises InputError where none was found.
        """
        folder = self.tokenizers.get(encoder.replace("text_encoder", "tokenizer"))
        if folder is None:
            folder = next(iter(self.tokenizers.values()), None)
        if folder is None and not self.speaks_clip:
            raise InputError(
                f"{self.path} holds no vocabulary (no single file does), and its words are not "
                "CLIP's: put the tokenizer/ folder of the model that it was beside it"
            )
        if folder is None:
            raise InputError(
                f"{self.path} holds no vocabulary (no single file does): put a tokenizer/ folder "
                "beside it, or fetch CLIP's once (1.5 MB): "
                "sdcore download --vocabulary"
            )
        return folder, self.pad_tokens.get(encoder), self.added_words


def check_agreement(components: dict[str, Component]) -> None:
    """Networks of one checkpoint must fit each other, or the loop would fail with a shape error."""
    if "unet" not in components:
        return
    unet = components["unet"]
    encoders = [c for name, c in components.items() if name.startswith("text_encoder")]
    widths = [c.config["hidden_size"] for c in encoders if _has_width(c)]
    context = unet.config.get("cross_attention_dim")
    # SDXL's UNet takes both encoders side by side, its refiner only the second.
    known = isinstance(context, int) and len(widths) == len(encoders) > 0
    if known and context not in (sum(widths), widths[-1]):
        raise InputError(
            f"{unet.config_path} says cross_attention_dim {context}, but "
            f"{encoders[0].config_path} says hidden_size {widths[0]}"
        )
    if "vae" not in components:
        return
    vae = components["vae"]
    latent, out = vae.config.get("latent_channels"), unet.config.get("out_channels")
    if isinstance(latent, int) and isinstance(out, int) and latent != out:
        raise InputError(
            f"{unet.config_path} says out_channels {out}, but "
            f"{vae.config_path} says latent_channels {latent}"
        )


def _has_width(encoder: Component) -> bool:
    return isinstance(encoder.config.get("hidden_size"), int)
