"""`make train ARGS=--quick`: all of the training, learning nothing; and going on after a stop."""

import json
import runpy
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import nn

import sdcore
from scripts.train import denoiser, vae, words
from scripts.train.__main__ import main
from scripts.train.fit import Schedule, fit


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("train")
    options = ["--quick", "--device", "cpu", "--work", str(work / "work")]
    done = CliRunner().invoke(main, [*options, "--out", str(work / "out")])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(work / "out")
    return work


def test_it_is_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "argv", ["train", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("scripts.train", run_name="__main__")
    assert ended.value.code == 0
    assert "--quick" in capsys.readouterr().out


def test_what_it_writes_can_draw(trained: Path) -> None:
    sd = sdcore.load(trained / "out", device="cpu")
    run = sd.prepare("a red house", seeds=[1], steps=2)
    x = run.start.x
    for step in run:
        x = step.x_next
    assert run.decode(x)[0].size == (128, 128)
    assert sd.vae.config.factor == 8
    assert sum(f.stat().st_size for f in (trained / "out").rglob("*")) <= 40e6


def test_diffusers_loads_it(trained: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(trained / "out")
    pipe.set_progress_bar_config(disable=True)
    ids = pipe.tokenizer("a big red house, qwx").input_ids
    tokenizer = sdcore.load(trained / "out", device="cpu").tokenizer
    assert list(tokenizer("a big red house, qwx").ids[: len(ids)]) == ids
    assert (
        pipe("a red house", num_inference_steps=1, height=128, width=128).images[0].size[0] == 128
    )


def test_finished_work_is_not_done_again(trained: Path) -> None:
    stamps = {f: f.stat().st_mtime_ns for f in (trained / "work").glob("*.pt")}
    before = load_file(trained / "out" / "unet" / "diffusion_pytorch_model.safetensors")
    options = ["--quick", "--device", "cpu", "--work", str(trained / "work")]
    done = CliRunner().invoke(main, [*options, "--out", str(trained / "again")])
    assert done.exit_code == 0, done.output
    assert {f: f.stat().st_mtime_ns for f in (trained / "work").glob("*.pt")} == stamps
    after = load_file(trained / "again" / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_going_on_from_a_finished_model(trained: Path) -> None:
    (trained / "more").mkdir()
    for name in ("pictures-1-16.npy", "latents.safetensors"):
        (trained / "more" / name).symlink_to(trained / "work" / name)
    options = ["--quick", "--device", "cpu", "--start", str(trained / "out")]
    options += ["--work", str(trained / "more"), "--out", str(trained / "finer")]
    done = CliRunner().invoke(main, options)
    assert done.exit_code == 0, done.output
    changed = {}
    for part in ("unet", "vae", "text_encoder"):
        (path,) = (trained / "out" / part).glob("*.safetensors")
        before, after = load_file(path), load_file(trained / "finer" / part / path.name)
        changed[part] = any(not torch.equal(before[k], after[k]) for k in before)
    assert changed == {"unet": True, "vae": False, "text_encoder": True}


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 1)


def test_an_interrupted_fit_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    schedule = Schedule(steps=12, lr=1e-2, warmup=2, ema=0.9, save_every=1e9)

    def run(name: str, stop: int | None) -> Line:
        model = Line()

        def loss(step: int) -> tuple[torch.Tensor, str]:
            if step == stop:
                raise KeyboardInterrupt
            x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
            return (model.layer(x).float() - x.sum(1, keepdim=True)).square().mean(), ""

        fit(model, loss, schedule, tmp_path / name)
        return model

    whole = run("whole.pt", None)
    with pytest.raises(KeyboardInterrupt):
        run("parts.pt", 5)
    assert torch.equal(run("parts.pt", None).layer.weight, whole.layer.weight)
    assert not torch.equal(whole.layer.weight, Line().layer.weight)


def test_rates_warm_up_stay_and_fall() -> None:
    schedule = Schedule(steps=100, lr=1.0, warmup=10, flat=0.4)
    rates = [schedule.lr * schedule.share(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10:40] == pytest.approx([1.0] * 30)
    assert all(a > b for a, b in pairwise(rates[41:]))
    assert rates[-1] < 0.02


def test_whitening_changes_latents_and_not_pictures() -> None:
    torch.manual_seed(0)
    model = vae.new_vae(vae.HALF).eval()
    pixels = np.random.default_rng(0).integers(0, 255, (8, 64, 64, 3), dtype=np.uint8)
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        before = model.decode(model.encode(x).mean)
        vae.whiten(model, pixels)
        code = model.encode(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1).mean
        assert (model.decode(model.encode(x).mean) - before).abs().max() <= 1e-4
    assert code.mean(dim=(0, 2, 3)).abs().max() <= 0.05
    assert (code.std(dim=(0, 2, 3)) - 1).abs().max() <= 0.05


def test_growing_keeps_the_inner_levels() -> None:
    half = vae.new_vae(vae.HALF)
    full = vae.grow(half)
    kept = full.state_dict()
    assert torch.equal(
        kept["encoder.down_blocks.3.resnets.0.conv1.weight"],
        half.state_dict()["encoder.down_blocks.2.resnets.0.conv1.weight"],
    )
    for name in ("encoder.mid_block.resnets.0.conv1.weight", "decoder.conv_in.weight"):
        assert torch.equal(kept[name], half.state_dict()[name])


def test_the_loss_weighs_what_the_words_decide() -> None:
    weights = denoiser.weight(torch.tensor([1e-3, 0.5, 1.0, 5.0, 50.0]))
    assert weights.tolist() == pytest.approx([5.0, 2.0, 1.0, 1.0, 0.1])


def test_any_text_can_be_written_in_the_vocabulary() -> None:
    tokenizer = words.make_tokenizer(seed=1, captions=300)
    for text in ("a red house", "Ünïcödé 你好 \U0001f600", "", "!!!"):
        ids = words.encode(tokenizer, [text])
        assert ids.shape == (1, 77)
        assert int(ids.max()) < tokenizer.get_vocab_size()
        assert ids[0, 0] == tokenizer.token_to_id(words.START)
    left, right = words.encode(tokenizer, ["a house left", "a house right"])
    assert (left != right).sum() == 1
    assert json.loads(tokenizer.to_str())["model"]["end_of_word_suffix"] == "</w>"
