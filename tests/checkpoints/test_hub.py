"""The hub, played by a small server here: what is asked for, what is not, and what is refused."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from safetensors.torch import load_file, save_file

from sdcore.checkpoints.hub import files_read
from sdcore.errors import InputError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "somebody/tiny"


class Hub:
    """Serves one folder as the repository REPO, as the hub does, and notes every file taken."""

    def __init__(self, folder: Path) -> None:
        hub, self.taken, self.status = self, [], 200

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if hub.status != 200 or REPO not in path:
                    return self.answer(b"{}", hub.status if hub.status != 200 else 404, {})
                if path.startswith("/api/"):
                    found = hub.tree(folder) if "/tree/" in path else hub.listing(folder)
                    return self.answer(json.dumps(found).encode(), 200, {})
                name = path.split(f"/resolve/{COMMIT}/")[-1].split("/resolve/main/")[-1]
                data = (folder / name).read_bytes()
                if self.command == "GET":
                    hub.taken.append(name)
                headers = {"ETag": f'"{sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
                return self.answer(data, 200, headers)

            def answer(self, data: bytes, status: int, headers: dict[str, str]) -> None:
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()

    @staticmethod
    def listing(folder: Path) -> dict:
        names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        return {"id": REPO, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}

    @staticmethod
    def tree(folder: Path) -> list[dict]:
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        return [
            {
                "type": "file",
                "path": p.relative_to(folder).as_posix(),
                "size": p.stat().st_size,
                "oid": sha1(p.read_bytes()).hexdigest(),
            }
            for p in files
        ]

    def sdcore(self, home: Path, *args: str, offline: bool = False) -> subprocess.CompletedProcess:
        endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        env = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home)}
        env |= {"HF_HUB_OFFLINE": str(int(offline)), "HF_HUB_DISABLE_TELEMETRY": "1"}
        env.pop("HF_HUB_CACHE", None)
        command = [sys.executable, "-m", "sdcore", *args]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def hub(broken_path: Path) -> Iterator[Hub]:
    unet = broken_path / "unet"
    plain = unet / "diffusion_pytorch_model.safetensors"
    (unet / "diffusion_pytorch_model.bin").write_bytes(b"not asked for")
    half = {key: tensor.half() for key, tensor in load_file(plain).items()}
    save_file(half, unet / "diffusion_pytorch_model.fp16.safetensors")
    (broken_path / "safety_checker").mkdir()
    (broken_path / "safety_checker" / "model.safetensors").write_bytes(b"large")
    (broken_path / "v1.ckpt").write_bytes(b"larger")
    hub = Hub(broken_path)
    yield hub
    hub.server.shutdown()


def test_only_what_is_read_is_fetched_and_then_no_network_is_needed(
    hub: Hub, tmp_path: Path
) -> None:
    done = hub.sdcore(tmp_path, "download", REPO)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert (folder / "model_index.json").is_file()
    assert folder.name == COMMIT
    assert folder.is_relative_to(tmp_path / "hub" / "models--somebody--tiny" / "snapshots")
    weights = [name for name in hub.taken if not name.endswith((".json", ".txt"))]
    assert sorted(weights) == [
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    hub.taken.clear()
    again = hub.sdcore(tmp_path, "download", REPO, offline=True)
    assert (again.stderr, again.stdout, hub.taken) == ("", done.stdout, [])
    draw = ["sample", "red", "--seed", "0", "--steps", "1", "--model", REPO, "--device", "cpu"]
    drawn = hub.sdcore(tmp_path, *draw, "--out", str(tmp_path / "a.png"), offline=True)
    assert drawn.returncode == 0, drawn.stderr
    # The variant is one file more, and all that is fetched.
    other = hub.sdcore(tmp_path, "download", REPO, "--variant", "fp16")
    assert other.returncode == 0, other.stderr
    assert hub.taken == ["unet/diffusion_pytorch_model.fp16.safetensors"]


def test_what_the_hub_refuses_is_one_line(hub: Hub, tmp_path: Path) -> None:
    for args, line in (
        (["download", "nobody/none"], "the hub answered 404 for nobody/none: is the name right?"),
        (["download", REPO, "--variant", "bf16"], "has no variant 'bf16' of any component"),
        (["download"], "name a model (owner/name), or --vocabulary"),
    ):
        done = hub.sdcore(tmp_path, *args)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert line in done.stderr


NAMES = [
    "README.md",
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    *(f"{p}/config.json" for p in ("unet", "vae", "text_encoder", "text_encoder_2")),
    *(f"text_encoder{n}/model.fp16.safetensors" for n in ("", "_2")),
    "text_encoder/pytorch_model.bin",
    "text_encoder/flax_model.msgpack",
    "text_encoder_2/model.safetensors.index.json",
    "text_encoder_2/model-00001-of-00002.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "vae/diffusion_pytorch_model.bin",
]


@pytest.mark.parametrize(
    ("variant", "weights"),
    [
        (
            None,
            [
                "text_encoder/pytorch_model.bin",
                "text_encoder_2/model.safetensors.index.json",
                "unet/diffusion_pytorch_model.safetensors",
                "vae/diffusion_pytorch_model.bin",
            ],
        ),
        (
            "fp16",
            [
                "text_encoder/model.fp16.safetensors",
                "text_encoder_2/model.fp16.safetensors",
                "unet/diffusion_pytorch_model.fp16.safetensors",
                "vae/diffusion_pytorch_model.bin",
            ],
        ),
    ],
)
def test_which_files_are_read(variant: str | None, weights: list[str]) -> None:
    read = files_read(REPO, NAMES, variant)
    small = [n for n in NAMES if n.endswith((".json", ".txt")) and "index.json" not in n]
    assert sorted(read) == sorted([*small, "model_index.json", *weights])


def test_repositories_of_one_component_and_of_none() -> None:
    own = ["config.json", "diffusion_pytorch_model.safetensors", "README.md"]
    assert set(files_read(REPO, own)) == set(own[:2])
    with pytest.raises(InputError, match="holds no model in the diffusers layout"):
        files_read(REPO, ["model.gguf"])
