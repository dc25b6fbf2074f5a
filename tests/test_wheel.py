"""A wheel carries the bundled model: unpacked anywhere, it draws."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sdcore.checkpoints import bundled_models

ROOT = Path(__file__).parents[1]


@pytest.mark.weights
@pytest.mark.skipif("picturebook" not in bundled_models(), reason="no bundled model here")
def test_a_wheel_draws_in_an_unrelated_folder(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    wheels, unpacked, elsewhere = (tmp_path / name for name in ("wheels", "unpacked", "elsewhere"))
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(unpacked)
    assert not [n for n in names if n.startswith(("tests/", "scripts/", "weights/"))]
    assert {"index.html", "main.js", "style.css"} <= {
        n.removeprefix("sdcore/server/page/") for n in names
    }
    elsewhere.mkdir()
    # `python -m sdcore`, which first says where its model lies: the source tree's would be beside
    # the package, not inside.
    code = (
        "import runpy, sys, sdcore.checkpoints as c;"
        "print(c.bundled_models()['picturebook'], file=sys.stderr, flush=True);"
        "runpy.run_module('sdcore', run_name='__main__')"
    )
    asked = ["sample", "a red house", "--seed", "0", "--steps", "1", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", code, *asked],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(unpacked), "HF_HUB_OFFLINE": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert (elsewhere / done.stdout.strip()).is_file()
    where = done.stderr.splitlines()[0]
    assert Path(where).is_relative_to(unpacked)
