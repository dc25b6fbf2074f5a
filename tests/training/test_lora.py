"""LoRA: the gradient, what is written, who reads it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sdcore.adapters import LAYOUTS
from sdcore.pipeline import StableDiffusion
from sdcore.training.lora import LoRATraining, LowRank, targets
from sdcore.training.plan import Plan
from tests.training.conftest import Trained

Run = Callable[..., Trained]


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def asked(network: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
    return network(rand(2, 4, 4, 4).to(dtype), 500.0, rand(2, 77, 16, seed=1).to(dtype))


def moved(training: LoRATraining, size: float = 0.1) -> None:
    """Put something into what begins at zero."""
    with torch.no_grad():
        for i, layer in enumerate(training.layers.values()):
            layer.up.copy_(size * rand(*layer.up.shape, seed=i))
            if layer.magnitude is not None:
                layer.magnitude.mul_(1 + size * rand(*layer.magnitude.shape, seed=i))


@torch.no_grad()
def test_it_begins_as_the_model(sd: StableDiffusion) -> None:
    for targets_, dora in (("all", False), ("transformer", True)):
        training = LoRATraining(sd, Plan(targets=targets_, dora=dora, text=True))
        new = asked(training.networks.unet)
        if not dora:
            assert torch.equal(new, asked(sd.unet))  # strength nothing: the base to the bit
        assert (new - asked(sd.unet)).abs().max() < 1e-5


def test_which_layers(sd: StableDiffusion) -> None:
    block = "down_blocks.0.attentions.0"
    attention, transformer, all_ = (
        set(targets("unet", sd.unet, kind)) for kind in ("attention", "transformer", "all")
    )
    assert attention < transformer < all_
    assert f"{block}.transformer_blocks.0.attn1.to_out.0" in attention
    assert transformer - attention >= {f"{block}.proj_in", f"{block}.proj_out",
                                       f"{block}.transformer_blocks.0.ff.net.0.proj"}  # fmt: skip
    assert all_ - transformer >= {"mid_block.resnets.0.conv1", "up_blocks.0.upsamplers.0.conv",
                                  "down_blocks.0.downsamplers.0.conv"}  # fmt: skip
    assert not any(name.startswith(("conv_in", "conv_out", "time_")) for name in all_)


@pytest.mark.parametrize("kind", ["linear", "convolution", "dora"])
def test_gradient_against_finite_differences(kind: str) -> None:
    """Of DoRA with respect to its magnitude, and of the others with respect to everything."""
    torch.manual_seed(0)
    base = nn.Conv2d(3, 5, 3, stride=2, padding=1) if kind == "convolution" else nn.Linear(6, 5)
    base = base.double().requires_grad_(False)
    plan = Plan(rank=2, alpha=3.0, dora=kind == "dora")
    layer = LowRank(base, plan, torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        layer.up.normal_()
    x = torch.randn(2, *((3, 6, 6) if kind == "convolution" else (6,)), dtype=torch.float64)

    def loss() -> Tensor:
        return layer(x).square().sum()

    loss().backward()
    checked = [layer.magnitude] if layer.magnitude is not None else [layer.down, layer.up]
    for parameter in checked:
        assert parameter.grad is not None
        flat = parameter.detach().view(-1)
        for i in range(0, flat.numel(), 3):
            before, step = flat[i].item(), 1e-6
            with torch.no_grad():
                flat[i] = before + step
                high = loss().item()
                flat[i] = before - step
                low = loss().item()
                flat[i] = before
            slope = (high - low) / (2 * step)
            assert slope == pytest.approx(parameter.grad.view(-1)[i].item(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("kind", "dora"), [("all", False), ("transformer", True)])
@torch.no_grad()
def test_a_file_acts_as_what_was_trained(
    sd: StableDiffusion, tmp_path: Path, layout: str, kind: str, dora: bool
) -> None:
    """Read back here, and by diffusers: eps of the network in training."""
    plan = Plan(rank=2, alpha=3.0, targets=kind, dora=dora, text=True, layout=layout,
                save_dtype="float32")  # fmt: skip
    training = LoRATraining(sd, plan)
    moved(training)
    path = training.write(tmp_path / "new", {"modelspec.title": "new"})
    shutil.copy(path, path.with_name("given.safetensors"))
    wanted, before = asked(training.networks.unet), asked(sd.unet)
    back = training.drawing(path)
    most = wanted.abs().max()
    assert back.loras[0].unmatched == ()  # type: ignore[attr-defined]
    assert (asked(back.unet) - wanted).abs().max() < 1e-5 * most
    assert (wanted - before).abs().max() > 0.01 * most
    ids = torch.tensor([sd.tokenizer("a red boat").ids])
    text = training.networks.readers[0].encoder(ids).last
    assert (back.readers[0].encoder(ids).last - text).abs().max() < 1e-4
    if dora and layout == "kohya":  # diffusers says that it drops dora_scale: the rest is a LoRA
        rest = {k: v for k, v in load_file(path).items() if not k.endswith(".dora_scale")}
        save_file(rest, path)
        wanted = asked(training.drawing(path).unet)
        text = training.drawing(path).readers[0].encoder(ids).last
        assert (asked(back.unet) - wanted).abs().max() > 0.01 * most
    diffusers, _ = pytest.importorskip("diffusers"), pytest.importorskip("peft")
    if kind == "all" and layout == "kohya":
        return  # its converter knows no convolutions of kohya's
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(sd.source.model)
    pipe.load_lora_weights(path.with_name("given.safetensors"))
    theirs = pipe.unet(rand(2, 4, 4, 4), 500.0, rand(2, 77, 16, seed=1)).sample
    assert (theirs - wanted).abs().max() < 5e-5 * most
    theirs = pipe.text_encoder(ids).last_hidden_state
    assert (theirs - text).abs().max() < 1e-4


def test_the_weights_are_float32_over_a_half_base(sd: StableDiffusion, run: Run) -> None:
    """Also after pictures were drawn on the way; the base's own are not touched."""
    from dataclasses import replace

    import sdcore

    half = sdcore.load(sd.source.model, device="cpu", dtype="bfloat16", engine="plain")
    before = {k: v.clone() for k, v in half.unet.state_dict().items()}
    training = LoRATraining(half, Plan(text=True))
    assert {p.dtype for g in training.groups for p in g.parameters} == {torch.float32}
    trained = run(networks=replace(half), look_every=1, text=True)
    state = load_file(next(trained.place.glob("checkpoint-*.safetensors")))
    assert {t.dtype for k, t in state.items() if k.startswith("weight.")} == {torch.float32}
    assert all(torch.equal(v, before[k]) for k, v in half.unet.state_dict().items())


def test_what_the_file_says_of_itself(run: Run) -> None:
    trained = run(min_snr=5.0, epochs=2, steps=None, batch=2, alpha=1.0, noise_offset=0.05)
    with safe_open(trained.path, "pt") as file:
        notes = file.metadata()
        alphas = {file.get_tensor(k).item() for k in file.keys() if k.endswith("alpha")}  # noqa: SIM118
    assert alphas == {1.0}
    assert notes["ss_network_module"] == "networks.lora"
    assert (notes["ss_network_dim"], notes["ss_network_alpha"]) == ("2", "1.0")
    assert (notes["ss_steps"], notes["ss_epoch"], notes["ss_num_train_images"]) == ("6", "2", "4")
    assert notes["ss_base_model_version"] == "sd_v1"
    assert notes["modelspec.sai_model_spec"] == "1.0.1"
    assert notes["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert (notes["modelspec.resolution"], notes["modelspec.prediction_type"]) == (
        "32x32", "epsilon")  # fmt: skip


def test_dropout_is_off_where_it_is_looked_at(sd: StableDiffusion) -> None:
    training = LoRATraining(sd, Plan(dropout=0.5))
    moved(training)
    training.networks.unet.train()
    assert not torch.equal(asked(training.networks.unet), asked(training.networks.unet))
    training.networks.unet.eval()
    assert torch.equal(asked(training.networks.unet), asked(training.networks.unet))
