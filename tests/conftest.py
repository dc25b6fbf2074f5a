"""What the tests share: a tiny random model in the diffusers layout, and a folder to break."""

import functools
import gc
import json
import os
import shutil
import signal
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import torch

from scripts.vocabulary import write_tokenizer
from tests.cli.shell import Shell

# Nothing that the environment of whoever runs the tests says to a command is said to these.
SAID = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "COLUMNS", "LINES", "FORCE_COLOR", "HF_TOKEN",
        "HF_ENDPOINT", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")  # fmt: skip
for name in [*os.environ]:
    if (
        name in SAID
        or name.startswith(("SDCORE_", "SLURM_", "TQDM_", "HF_HUB_"))
        or name.upper().endswith("_PROXY")  # what is asked of this machine goes nowhere else
    ):
        del os.environ[name]
os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: no test asks the network
os.environ["SDCORE_CONFIG"] = ""  # no test reads the defaults of whoever runs it
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before triton is: kernels run without a GPU, slowly

# A shell begins what runs in its background deaf to Ctrl-C, which some tests press.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The networks here are tiny: a second thread only waits, for seconds where the machine is busy.
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    times = "how many times as many examples the laws and the fuzzer try"
    parser.addoption("--times", type=int, default=1, help=times)
    parser.addoption("--inputs", help="of the fuzzer: one kind, or one input as kind:seed")


# What takes longest, in the order of its length: begun last it would leave other workers idle.
LONG = ("scripts/test_file_kinds.py", "train/test_train.py", "server/test_live.py",
        "server/test_fuzzed.py", "scripts/test_tutorial.py", "training/test_ranks.py")  # fmt: skip


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected stays: no collection of garbage goes through it, now or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    torch.manual_seed(0)  # whatever ran before


def pytest_unconfigure() -> None:
    gc.unfreeze()  # libraries that count at the end what is left take it for lost


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return next((n for n, name in enumerate(LONG) if item.path.match(name)), len(LONG))

    items.sort(key=place)


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of SD 1.x's structure, written by diffusers and transformers. Do not change.

    Pictures of 32 x 32 from latents of 4 x 4; eps prediction, DDIM in scheduler_config.json.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    root = tmp_path_factory.mktemp("models") / "tiny"
    write_tokenizer(root / "tokenizer")
    size = len(json.loads((root / "tokenizer" / "vocab.json").read_text()))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = CLIPTextConfig(
            vocab_size=size,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            bos_token_id=size - 2,
            eos_token_id=size - 1,
            pad_token_id=size - 1,
        )
        CLIPTextModel(config).save_pretrained(root / "text_encoder")
        UNet2DConditionModel(
            sample_size=4,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=2,
            cross_attention_dim=16,
            norm_num_groups=4,
        ).save_pretrained(root / "unet")
        AutoencoderKL(
            block_out_channels=(4, 4, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=4,
            sample_size=32,
        ).save_pretrained(root / "vae")
    DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    ).save_pretrained(root / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (root / "model_index.json").write_text(json.dumps(index, indent=2))
    return root


@pytest.fixture(scope="session")
def family_path(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """name in `scripts.families.FAMILIES` -> the folder of its small model. Do not change."""
    from scripts import families

    @functools.cache
    def written(name: str) -> Path:
        return families.write(tmp_path_factory.mktemp("family"), families.FAMILIES[name])

    return written


@pytest.fixture
def broken_path(tiny_path: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model for a test to break."""
    return Path(shutil.copytree(tiny_path, tmp_path / "broken"))


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, Path | None, str]]:
    """Runs `sdcore` in a folder of its own: status, first path, stderr."""
    from sdcore.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> tuple[int, Path | None, str]:
        with pytest.raises(SystemExit) as caught:
            main([str(a) for a in args])
        out, err = capfd.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, Path(out.split("\n")[0]) if out else None, err

    return run


@pytest.fixture
def shell(
    tiny_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Shell:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return Shell(capfd, tiny_path)
