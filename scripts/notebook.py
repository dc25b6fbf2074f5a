"""Run docs/notebook.ipynb from its first cell to its last, and keep what its cells show.

python -m scripts.notebook              # pip install 'sdcore[notebook]'
"""

import json
from pathlib import Path

import click
import nbformat
from nbclient import NotebookClient

from sdcore.writing import write_whole

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"


def executed(model: str = "picturebook") -> nbformat.NotebookNode:
    """The notebook, run with this model. Raises CellExecutionError where it fails."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.source = first.source.replace('"picturebook"', json.dumps(model))
    client = NotebookClient(notebook, timeout=600, record_timing=False)
    client.execute(cwd=str(NOTEBOOK.parents[1]))
    return notebook


@click.command(help=__doc__)
def main() -> None:
    notebook = executed()
    notebook.metadata.pop("language_info", None)
    write_whole(NOTEBOOK, (nbformat.writes(notebook) + "\n").encode())
    click.echo(NOTEBOOK)


if __name__ == "__main__":
    main()
