"""The loss with all that is put to it, and the gradient of a step, also of several processes."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sdcore
from sdcore.errors import InputError
from sdcore.pipeline import StableDiffusion
from sdcore.training.batches import Batches
from sdcore.training.folder import Example
from sdcore.training.full import FullTraining
from sdcore.training.latents import Item
from sdcore.training.lora import LoRATraining
from sdcore.training.loss import min_snr_weight
from sdcore.training.optimizer import Average, Group, optimizer_of, share
from sdcore.training.order import Order
from sdcore.training.plan import Plan, with_defaults
from sdcore.training.process import check_trainable, process_and_schedule, readied
from sdcore.training.steps import Trainer, errors
from sdcore.training.train import train
from tests.training.conftest import Trained

Run = Callable[..., Trained]


def items(count: int = 4, side: int = 4, seed: int = 0) -> list[Item]:
    generator = torch.Generator().manual_seed(seed)
    size = (8 * side, 8 * side)
    return [
        Item(
            Example(Path(f"{i}.png"), ("a red house", "a boat")), size, (40, 30), ((4, 0),),
            torch.randn(1, 4, side, side, generator=generator), torch.full((1, 4, side, side), 0.1),
        )
        for i in range(count)
    ]  # fmt: skip


def trainer_of(
    sd: StableDiffusion, *, prior: list[Item] | None = None, count: int = 4, **options: Any
) -> Trainer:
    plan = with_defaults(Plan(**{"rank": 2, "grid": 1, **options}), sd.prediction_type, 32)
    networks = readied(sd, plan)
    kind = LoRATraining if plan.method == "lora" else FullTraining
    trained = kind(networks, plan)
    process, schedule = process_and_schedule(networks)

    def batches(of: list[Item], stream: int) -> Batches:
        order = Order(tuple(i.size for i in of), (1,) * len(of), plan.batch, plan.seed)
        empty = None if sd.zero_empty else ""
        return Batches(of, order, schedule, 0, plan.caption_dropout, empty, plan.noise_offset,
                       stream)  # fmt: skip

    parameters = [p for g in trained.groups for p in g.parameters]
    return Trainer(
        trained=trained, plan=plan, process=process, batches=batches(items(count), 0),
        optimizer=optimizer_of(plan.optimizer, trained.groups, plan.weight_decay),
        average=Average(parameters, plan.ema), total=10,
        prior=None if prior is None else batches(prior, 1),
    )  # fmt: skip


def gradients(trainer: Trainer, step: int = 0) -> tuple[float, list[Tensor]]:
    loss = trainer.gradients(step).item()
    return loss, [p.grad.clone() for p in trainer.parameters if p.grad is not None]


def test_min_snr_weights() -> None:
    """As the paper has them; finite where no signal is left, and where no noise is."""
    sigma = torch.tensor([0.1, 0.4, 1.0, 3.0, 14.6])
    snr = sigma**-2
    low = torch.minimum(snr, torch.tensor(5.0))
    for kind, wanted in (("epsilon", low / snr), ("v_prediction", low / (snr + 1)),
                         ("sample", low),
                         ("flow_prediction", low * (sigma / (1 + sigma)) ** 2)):  # fmt: skip
        assert min_snr_weight(kind, sigma, 5.0) == pytest.approx(wanted)
        assert (min_snr_weight(kind, sigma, 0.0) == 1).all()
        ends = min_snr_weight(kind, torch.tensor([torch.inf, 2.0**24, 1e-3]), 5.0)
        assert ends.isfinite().all()
    assert min_snr_weight("epsilon", torch.tensor([torch.inf]), 5.0) == 1


def test_prior_preservation_is_the_mean_of_each(sd: StableDiffusion) -> None:
    """L + w L_prior, each the mean of its own batch, also where min-SNR weighs both."""
    for min_snr in (0.0, 5.0):
        options = {"batch": 2, "caption_dropout": 0.0, "min_snr": min_snr}
        plain, first = gradients(trainer_of(sd, **options))
        prior = items(3, seed=9)
        both, joined = gradients(trainer_of(sd, prior=prior, class_prompt="x", prior_weight=0.5,
                                            **options))  # fmt: skip
        alone = trainer_of(sd, **options)
        swapped = trainer_of(sd, prior=prior, class_prompt="x", **options)
        assert swapped.prior is not None
        alone.batches = swapped.prior
        second, third = gradients(alone)
        assert both == pytest.approx(plain + 0.5 * second, rel=1e-5)
        for a, b, c in zip(first, third, joined, strict=True):
            assert (a + 0.5 * b - c).abs().max() < 1e-6


def test_accumulated_batches_are_one_larger(sd: StableDiffusion) -> None:
    trainer = trainer_of(sd, accumulate=2, caption_dropout=0.0, batch=2)
    loss, grads = gradients(trainer)
    trainer.plan = replace(trainer.plan, accumulate=1)
    one, two = gradients(trainer, 0), gradients(trainer, 1)
    assert loss == pytest.approx((one[0] + two[0]) / 2, rel=1e-5)
    for a, b, c in zip(one[1], two[1], grads, strict=True):
        assert ((a + b) / 2 - c).abs().max() < 1e-7


def test_checkpointing_changes_no_gradient(sd: StableDiffusion) -> None:
    from sdcore.adapters import twin
    from sdcore.models.layers import ResnetBlock
    from sdcore.models.unet import TransformerBlock
    from sdcore.training.steps import checkpointed

    plain = gradients(trainer_of(sd, targets="all"))
    trainer = trainer_of(sd, targets="all")
    unet = twin(trainer.trained.networks.unet)
    checkpointed(unet, (TransformerBlock, ResnetBlock))
    trainer.trained.networks = trainer.trained.networks.with_modules({"unet": unet})  # type: ignore
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: (saved.append(t.numel()), t)[1], lambda t: t
    ):
        again = gradients(trainer)
    assert again[0] == plain[0]
    assert all(torch.equal(a, b) for a, b in zip(again[1], plain[1], strict=True))


def test_the_full_gradient_against_finite_differences(sd: StableDiffusion) -> None:
    trainer = trainer_of(sd, method="full", caption_dropout=0.0, batch=2)
    trainer.gradients(0)
    network = trainer.trained.networks.unet
    bias, grad = network.conv_out.bias, network.conv_out.bias.grad
    assert bias is not None
    assert grad is not None
    wanted = grad.clone()
    for i in range(4):
        values = []
        for step in (1e-2, -2e-2):
            with torch.no_grad():
                bias[i] += step
            values.append(trainer.gradients(0).item())
        with torch.no_grad():
            bias[i] += 1e-2
        assert (values[0] - values[1]) / 2e-2 == pytest.approx(wanted[i].item(), rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample", "flow_prediction"])
def test_each_prediction_type_is_learned(sd: StableDiffusion, kind: str) -> None:
    """The loss on a batch that stays the same falls."""
    trainer = trainer_of(sd, prediction_type=kind, lr=2e-2, warmup=0.0, schedule="constant",
                         count=1, caption_dropout=0.0, targets="all")  # fmt: skip
    assert trainer.plan.prediction_type == kind
    batch = trainer.batches(0)

    def error() -> float:
        with torch.no_grad():
            found = errors(trainer.trained.networks, trainer.conditions, trainer.process, batch)
        return found.mean().item()

    before = error()
    trainer.batches = lambda number: batch  # type: ignore[assignment]
    for _ in trainer.steps():
        pass
    assert error() < 0.9 * before


def test_zero_terminal_snr_is_for_v(sd: StableDiffusion, run: Run) -> None:
    """The table is the rescaled one, the loss is finite at its end, and pictures begin there."""
    with pytest.raises(InputError, match="--zero-snr is for v_prediction only: this is epsilon"):
        with_defaults(Plan(zero_snr=True), "epsilon", 32)
    plan = with_defaults(Plan(zero_snr=True, prediction_type="v"), "epsilon", 32)
    networks = readied(sd, plan)
    process, schedule = process_and_schedule(networks)
    assert schedule.sigmas[-1] > 1000
    assert schedule.sigmas[0] == pytest.approx(process_and_schedule(sd)[1].sigmas[0], rel=1e-4)
    trained = LoRATraining(networks, plan)
    batch = Batches(items(), Order((1,) * 4, (1,) * 4, 2, 0), schedule, 0)(0)
    last = len(schedule) - 1
    end = torch.full((2,), last)

    from sdcore.training.conditions import Conditions

    batch = replace(batch, t=end, sigma=torch.full((2,), schedule.sigmas[-1]))
    with torch.no_grad():
        error = errors(trained.networks, Conditions(networks, True), process, batch)
    assert error.isfinite().all()
    assert min_snr_weight("v_prediction", batch.sigma, 5.0).isfinite().all()
    run_ = networks.prepare("a boat", steps=3)  # type: ignore[attr-defined]
    assert run_.plan.timestep(run_.sigmas[0]) == last
    assert run(zero_snr=True, prediction_type="v_prediction").path.is_file()


def test_noise_offset(sd: StableDiffusion) -> None:
    """eps + o n: the mean of each channel has the variance o^2 more."""
    order = Order((1,) * 4, (1,) * 4, 4, 0)
    _, schedule = process_and_schedule(sd)
    plain, offset = (Batches(items(), order, schedule, 0, offset=o) for o in (0.0, 0.5))
    a, b = plain(3), offset(3)
    difference = b.eps - a.eps
    assert torch.equal(a.x0, b.x0)
    assert difference.std(dim=(2, 3)).max() < 1e-6
    means = torch.stack([offset(n).eps - plain(n).eps for n in range(60)]).mean(dim=(3, 4))
    assert means.std().item() == pytest.approx(0.5, rel=0.1)


def test_dropped_captions(sd: StableDiffusion, family_path: Callable[[str], Path]) -> None:
    order, (_, schedule) = Order((1,) * 4, (1,) * 4, 4, 0), process_and_schedule(sd)
    drawn = [t for n in range(100) for t in
             Batches(items(), order, schedule, 0, dropout=0.25)(n).texts]  # fmt: skip
    assert 0.18 < drawn.count("") / len(drawn) < 0.32
    assert {"a red house", "a boat", ""} == set(drawn)
    xl = sdcore.load(family_path("SDXL"), device="cpu")
    trainer = trainer_of(xl, caption_dropout=1.0, batch=2)
    batch = trainer.batches(0)
    assert batch.texts == (None, None)
    told = trainer.conditions(batch.texts, batch.told)
    assert (told["context"] == 0).all()
    assert (told["text_embeds"] == 0).all()


def test_sdxl_is_told_sizes_and_crops(family_path: Callable[[str], Path]) -> None:
    """Height before width; the size of the file, where it was cut, the size it is trained at."""
    xl = sdcore.load(family_path("SDXL"), device="cpu")
    trainer = trainer_of(xl, batch=2)
    batch = trainer.batches(0)
    told = trainer.conditions(batch.texts, batch.told)
    assert told["time_ids"].tolist() == [[30, 40, 0, 4, 32, 32]] * 2
    assert told["context"].shape == (2, 77, 80)
    loss, grads = gradients(trainer)
    assert loss > 0
    assert any(grad.abs().max() > 0 for grad in grads)


def test_schedules() -> None:
    assert [share("constant", i, 8, 4) for i in (0, 1, 3, 4, 7)] == [0.25, 0.5, 1, 1, 1]
    assert [share("linear", i, 8, 0.0) for i in (0, 4, 8)] == [1, 0.5, 0]
    assert [share("cosine", i, 100, 0.2) for i in (9, 20, 60, 100)] == pytest.approx(
        [0.5, 1, 0.5, 0]
    )


def test_the_average() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    average = Average([parameter], 0.5)
    with torch.no_grad():
        for step, value in enumerate((1.0, 2.0, 3.0)):
            parameter.fill_(value)
            average.update(step)
    wanted = 0.0
    for step, value in enumerate((1.0, 2.0, 3.0)):
        decay = min(0.5, (step + 1) / (step + 10))
        wanted = decay * wanted + (1 - decay) * value
    with average:
        assert parameter.item() == pytest.approx(wanted)
    assert parameter.item() == 3


def test_optimizers_that_are_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group("x", (nn.Parameter(torch.zeros(2, 2)),), 1.0)
    for name, package in (("prodigy", "prodigyopt"), ("adamw8bit", "bitsandbytes")):
        for module in [m for m in sys.modules if m.split(".")[0] == package]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(InputError, match=rf"needs {package}.*pip install 'sdcore\[train\]'"):
            optimizer_of(name, [group], 0.0)


@pytest.mark.parametrize(("name", "package"), [("prodigy", "prodigyopt"),
                                               ("adamw8bit", "bitsandbytes")])  # fmt: skip
def test_the_extra_optimizers(sd: StableDiffusion, name: str, package: str) -> None:
    """They make the loss of a batch that stays the same smaller; one holds its means in 8 bits."""
    pytest.importorskip(package)
    rate = 1e-3 if name == "adamw8bit" else None
    trainer = trainer_of(sd, optimizer=name, method="full", lr=rate, warmup=0.0, count=1,
                         schedule="constant", caption_dropout=0.0)  # fmt: skip
    trainer.total = 40
    batch = trainer.batches(0)
    trainer.batches = lambda number: batch  # type: ignore[assignment]
    losses = [step.loss for step in trainer.steps()]
    assert losses[-1] < 0.8 * losses[0]
    kinds = {t.dtype for s in trainer.optimizer.state.values() for t in s.values()
             if isinstance(t, Tensor)}  # fmt: skip
    assert (torch.uint8 in kinds) == (name == "adamw8bit")


def test_models_that_are_not_trained(
    sd: StableDiffusion, tiny_path: Path, family_path: Callable[[str], Path], tmp_path: Path
) -> None:
    low = sdcore.load(tiny_path, device="cpu", memory="low")
    with pytest.raises(InputError, match="a model is trained with --memory fast"):
        check_trainable(low)
    half = sdcore.load(tiny_path, device="cpu", dtype="float16")
    with pytest.raises(InputError, match="in float16 small gradients become 0"):
        train(half, tmp_path, Plan(), tmp_path / "out")
    with pytest.raises(InputError, match="is an inpainting model"):
        check_trainable(sdcore.load(family_path("SD 1.x inpainting"), device="cpu"))
    with pytest.raises(InputError, match="is told the guidance scale"):
        check_trainable(sdcore.load(family_path("LCM"), device="cpu"))
    odd = sdcore.load(tiny_path, device="cpu")
    zeros = torch.zeros_like(odd.unet.conv_out.weight, dtype=torch.int8)
    odd.unet.conv_out.weight = nn.Parameter(zeros, requires_grad=False)
    with pytest.raises(InputError, match=r"the unet of .* is quantized"):
        check_trainable(odd)
    assert not (tmp_path / "out").exists()
