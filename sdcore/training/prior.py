"""Prior preservation (Ruiz et al. 2023, section 3.3): what else is of the kind stays as it is.

The pictures of the class are drawn by the model itself, before it is trained; its own loss on them
holds it where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sdcore.errors import InputError
from sdcore.images import save_png
from sdcore.networks import Networks
from sdcore.paths import path_of
from sdcore.training.folder import Example, Skipped, read_folder
from sdcore.training.pictures import drawn
from sdcore.training.plan import Plan

SEED = 1000  # of the first picture; the sheets' seeds are others


def class_pictures(
    networks: Networks,
    plan: Plan,
    out: Path,
    bar: Callable[[Sequence[int]], Iterable[int]] = lambda numbers: numbers,
) -> tuple[list[Example], list[Skipped]]:
    """The pictures of the class, all under its prompt: those of a folder, else drawn into `out`.

    Beside them what of the folder is passed over. What is there already is not drawn again.

    Raises InputError for a folder that holds none.
    """
    prompt = plan.class_prompt
    assert prompt is not None
    if plan.class_dir is not None:
        examples, skipped = read_folder(path_of(plan.class_dir), prompt)
        if not examples:
            raise InputError(f"--class-dir {plan.class_dir} holds no pictures")
        classes = [Example(e.path, (prompt,), e.repeats) for e in examples]
        return classes[: plan.class_pictures], skipped
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{number:04d}.png" for number in range(plan.class_pictures)]
    for number in bar([n for n, path in enumerate(paths) if not path.is_file()]):
        ((picture, settings),) = drawn(networks, [prompt], [SEED + number])
        save_png(picture, paths[number], settings)
    return [Example(path, (prompt,)) for path in paths], []
