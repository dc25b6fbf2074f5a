"""The text that A1111's web interface keeps in a picture, `parameters`: written and read.

    a red house <lora:style:0.8>
    Negative prompt: blurry
    Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x512, ...

What is written means the same there as here, as far as it has a name there: the samplers by the
labels of its list (of any other name it takes the first), RNG: CPU (its own noise is the GPU's), a
LoRA as a tag in the prompt. No folder of the user's is named.
"""

from sdcore.a1111.names import SAMPLERS, SCHEDULES, UPSCALERS, bare
from sdcore.a1111.read import Infotext, read, untagged
from sdcore.a1111.write import parameters

__all__ = [
    "SAMPLERS",
    "SCHEDULES",
    "UPSCALERS",
    "Infotext",
    "bare",
    "parameters",
    "read",
    "untagged",
]
