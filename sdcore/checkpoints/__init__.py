"""From a name on the command line to modules with weights: find, read, name, load strictly."""

from sdcore.checkpoints.find import bundled_models, find_model
from sdcore.checkpoints.folder import Checkpoint, Component, open_folder
from sdcore.checkpoints.load import load_component, load_strictly

__all__ = [
    "Checkpoint",
    "Component",
    "bundled_models",
    "find_model",
    "load_component",
    "load_strictly",
    "open_folder",
]
