"""From words to pictures: glue only. What it calls is where the ideas are."""

from __future__ import annotations

from pathlib import Path

from sdcore.adapters import Embedding, with_embedding, with_lora, without_loras
from sdcore.complete import complete
from sdcore.conditioning import Conditioner
from sdcore.models import TextEncoder
from sdcore.networks import Networks
from sdcore.options import method_takes
from sdcore.picture_options import OPTIONS
from sdcore.prepare import conditioner_of, prepare
from sdcore.prompts import Tokenizer
from sdcore.request import Request, parts_of
from sdcore.run import Run

ELSEWHERE = {  # what diffusers and A1111 call the same
    "prompt": "prompts",
    "seed": "seeds",
    "generator": "seeds",
    "num_images_per_prompt": "seeds",
    **{flag[2:].replace("-", "_"): name for name, each in OPTIONS.items() for flag in each.also},
}


class StableDiffusion(Networks):
    """A model that is ready to draw: its networks, each of which can be used by itself."""

    @property
    def text_encoder(self) -> TextEncoder:
        """The first text encoder."""
        return self.readers[0].encoder

    @property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer."""
        return self.readers[0].tokenizer

    @property
    def text_encoder_2(self) -> TextEncoder | None:
        """SDXL's second; None: there is one only."""
        return self.readers[1].encoder if len(self.readers) > 1 else None

    @property
    def tokenizer_2(self) -> Tokenizer | None:
        """SDXL's second; None where there is one only."""
        return self.readers[1].tokenizer if len(self.readers) > 1 else None

    @property
    def conditioner(self) -> Conditioner:
        """Settings to what the UNet is told."""
        return conditioner_of(self)

    @method_takes(Request, also=ELSEWHERE)
    def prepare(self, request: Request) -> Run:
        """Everything up to the first step: one picture for each prompt and each seed.

        sd.prepare(prompts, negative=None, seeds=(0,), *, and any of the options below). What is
        None is left to the model and the scheduler. Raises InputError for whatever is out of
        range, or not for this model.
        """
        parts = parts_of(request, self)
        return prepare(self, complete(request, self, parts), parts)

    def with_lora(
        self,
        path: str | Path,
        strength: float = 1.0,
        *,
        unet: float | None = None,
        text: float | None = None,
        merged: bool = True,
    ) -> StableDiffusion:
        """This model with an adapter (LoRA and its kin) acting on it, beside those it has.

        Nothing is changed in place: this object stays what it is, the new one shares every weight
        that the adapter does not touch, and `without_loras` gives the first one back.

        Args:
            path: a file, or a folder that diffusers or PEFT wrote.
            strength: of its effect; 1 as trained, 0 none, negative the opposite.
            unet, text: the same for the UNet and the text encoders; None: `strength`.
            merged: add it to the weights; else it runs beside the layers, which takes less memory
                and more time, and gives the same picture but for rounding.

        Raises:
            InputError: no adapter, one of an unknown kind, one for another family.
        """
        return with_lora(self, path, strength, unet=unet, text=text, merged=merged)

    def without_loras(self) -> StableDiffusion:
        """The model as it was before any adapter, bit for bit."""
        return without_loras(self)

    def with_embedding(
        self, path: str | Path | Embedding, token: str | None = None
    ) -> StableDiffusion:
        """This model knowing one word more (textual inversion); this one stays as it is.

        Args:
            path: a file of diffusers', A1111's or SDXL's form, a training's folder, or an embedding
                that is open.
            token: how the word is written in prompts, in any case; None: as the file says, or its
                name. It stands for all its vectors, and weights and chunks take them together.

        Raises:
            InputError: no such file, none of that kind, one for another family, a word taken.
        """
        return with_embedding(self, path, token)
