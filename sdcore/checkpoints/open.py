"""A model by its name, described: whichever layout it lies in."""

from pathlib import Path

from sdcore.checkpoints.checkpoint import Checkpoint
from sdcore.checkpoints.find import find_model
from sdcore.checkpoints.folder import open_folder
from sdcore.checkpoints.single_file import open_file


def open_model(model: str | Path) -> Checkpoint:
    """The checkpoint of a bundled name, a folder, a file or a hub id; no weights are read yet.

    Raises InputError for what is not there or cannot be made out.
    """
    path = find_model(model)
    return open_file(path) if path.is_file() else open_folder(path)
