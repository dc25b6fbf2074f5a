"""From a name on the command line to modules with weights: find, read, name, load strictly."""

from sdcore.checkpoints.checkpoint import Checkpoint, Component
from sdcore.checkpoints.find import bundled_adapters, bundled_models, find_model
from sdcore.checkpoints.folder import open_folder
from sdcore.checkpoints.load import load_component, load_strictly, ready_bytes
from sdcore.checkpoints.one_component import open_part
from sdcore.checkpoints.open import open_model, open_source
from sdcore.checkpoints.prefetch import read_ahead
from sdcore.checkpoints.single_file import open_file

__all__ = [
    "Checkpoint",
    "Component",
    "bundled_adapters",
    "bundled_models",
    "find_model",
    "load_component",
    "load_strictly",
    "open_file",
    "open_folder",
    "open_model",
    "open_part",
    "read_ahead",
    "ready_bytes",
    "open_source",
]
