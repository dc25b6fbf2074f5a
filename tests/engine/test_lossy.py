"""What is traded for time: what is exact of it, what is remembered, where it is refused."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import sdcore
from sdcore.engine import Lossy, ready
from sdcore.engine.calls import Kept
from sdcore.engine.lossy import DeepCache, TGate, step_of
from sdcore.engine.merging import Merging
from sdcore.engine.unet import FastUNet
from sdcore.errors import InputError
from tests.engine.networks import latents, told, unet

TIMES = [900.0, 700.0, 500.0, 300.0, 100.0, 0.0]


def apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("deepcache", "deepcache:every=3,near=2"),
        ("bf16+deepcache:every=5", "deepcache:every=5,near=2+bf16"),
        ("tome:ratio=0.7+tgate", "tome:ratio=0.7,levels=1+tgate:after=0.4"),
    ],
)
def test_the_written_form(text: str, whole: str) -> None:
    assert str(Lossy.read(text)) == whole
    assert Lossy.read(whole) == Lossy.read(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("deepcash", "did you mean deepcache"),
        ("deepcache:every=0", "every is a whole number of at least 1, not 0"),
        ("deepcache:every=2.5", "at least 1, not 2.5"),
        ("tome:ratio=1.5", "ratio is a number between 0 and 1, not 1.5"),
        ("tome:rate=0.5", "did you mean ratio"),
        ("bf16:every=2", "every"),
        ("tgate+tgate:after=0.5", "stands twice"),
        ("tgate+", "names nothing"),
        ("mine.py", "lossy option"),
    ],
)
def test_what_cannot_be_read(text: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        Lossy.read(text)


def test_a_question_between_two_steps_belongs_to_the_first() -> None:
    asked = (950.0, 900.0, 800.0, 700.0, 300.0, 50.0, 0.0, -1.0)
    assert [step_of(t, TIMES) for t in asked] == [0, 0, 0, 1, 3, 4, 5, 5]


@pytest.mark.parametrize("name", ["SD 1.x", "SDXL", "small", "small middle", "inpainting"])
@pytest.mark.parametrize("near", [1, 2, 3])
def test_fresh_features_under_the_same_question_change_nothing(name: str, near: int) -> None:
    """The layers that are asked anew find everything as it was: the answer is the whole one."""
    net = unet(name)
    said, x = told(net, 2), latents(2)
    call = ready(net, TIMES, lossy=Lossy(DeepCache(every=2, near=near)))
    exact = ready(net, TIMES)(x, 900.0, **said)
    assert torch.equal(call(x, 900.0, **said), exact)
    assert apart(call(x, 900.0, **said), exact) < 1e-6
    later = call(x, 700.0, **said)
    assert 1e-6 < apart(later, ready(net, TIMES)(x, 700.0, **said)) < 1


def test_every_third_question_asks_the_whole_network(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for name in ("whole", "shallow"):
        run = getattr(FastUNet, name)
        monkeypatch.setattr(
            FastUNet, name, lambda *given, n=name, run=run: asked.append(n) or run(*given)
        )
    net = unet("SD 1.x")
    one, two = told(net, 2), told(net, 2, seed=5)
    call = ready(net, TIMES, lossy=Lossy(DeepCache(every=3)))
    for t in TIMES:
        call(latents(2), t, **one)
    assert asked == ["whole", "shallow", "shallow"] * 2
    asked.clear()
    call(latents(2), 100.0, **two)  # another picture: nothing is known of it
    call(latents(2), 0.0, **two)
    call(latents(2), 900.0, **one)  # time rose: another run
    assert asked == ["whole", "shallow", "whole"]


def test_recordings_of_one_network_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was drawn with it before: a recording answers as the function that it is of."""

    class Recording:
        held: object = None

        def __init__(self, function: Callable[..., tuple], inputs: Sequence[Tensor]) -> None:
            self.function, self.inputs = function, list(inputs)

        def load(self, values: Sequence[Tensor], begin: int = 0) -> None:
            self.inputs[begin : begin + len(values)] = values

        def __call__(self) -> tuple[Tensor, ...]:
            return self.function(*self.inputs)

    net = unet("SD 1.x")
    said, x = told(net, 2), latents(2)
    options = [
        "",
        "deepcache:every=2",
        "deepcache:every=2,near=1",
        "tgate",
        "deepcache:every=2+tgate",
    ]

    def answers(text: str) -> list[Tensor]:
        call = ready(net, TIMES, lossy=Lossy.read(text) if text else None)
        return [call(x, t, **said) for t in TIMES]

    expected = [answers(text) for text in options]
    kept: dict[tuple, Recording] = {}
    monkeypatch.setattr(
        Kept, "graph", lambda self, key, *made: kept.setdefault(key, Recording(*made))
    )
    for text, right in zip(options * 2, expected * 2, strict=True):
        for answer, out in zip(answers(text), right, strict=True):
            assert torch.equal(answer, out)


def test_attention_to_the_text_is_kept_after_a_share_of_the_steps() -> None:
    net = unet("SD 1.x")
    said, x = told(net, 2), latents(2)
    exact, call = ready(net, TIMES), ready(net, TIMES, lossy=Lossy(tgate=TGate(after=0.5)))
    for t in TIMES[:4]:
        assert torch.equal(call(x, t, **said), exact(x, t, **said))  # the fourth is the one kept
    call.told[0].texts = ()  # nobody looks at it from here on
    out = call(x, 100.0, **said)
    assert 1e-6 < apart(out, exact(x, 100.0, **said)) < 1


def by_hand(tokens: Tensor, height: int, width: int, ratio: float) -> tuple[list, dict]:
    """Token by token: who stays, and which are averaged into each destination."""
    first = [
        y * width + x
        for y in range(0, height - height % 2, 2)
        for x in range(0, width - width % 2, 2)
    ]
    others = [i for i in range(height * width) if i not in first]
    unit = tokens / tokens.norm(dim=-1, keepdim=True)
    best = {i: max((float(unit[i] @ unit[j]), j) for j in first) for i in others}
    gone = sorted(others, key=lambda i: -best[i][0])[: int(ratio * height * width)]
    groups = {j: [j, *(i for i in gone if best[i][1] == j)] for j in first}
    return [i for i in others if i not in gone], groups


@pytest.mark.parametrize(("height", "width", "ratio"), [(4, 6, 0.5), (5, 7, 0.3), (4, 4, 0.75)])
def test_tokens_are_merged_as_by_hand(height: int, width: int, ratio: float) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, height * width, 8, generator=generator)
    merged = Merging(ratio).of(tokens, torch.Size([height, width]))
    assert merged is not None
    for row in (0, 1):
        stays, groups = by_hand(tokens[row], height, width, ratio)
        means = {j: tokens[row, members].mean(dim=0) for j, members in groups.items()}
        assert sorted(merged.stays[row].tolist()) == stays
        got = merged.apart(merged.tokens)[row]
        for i in stays:
            assert torch.equal(got[i], tokens[row, i])
        for j, members in groups.items():
            for i in members:
                assert torch.allclose(got[i], means[j], atol=1e-6)
    assert merged.tokens.shape[1] == height * width - int(ratio * height * width)


def test_a_map_without_cells_is_left_alone() -> None:
    assert Merging(0.5).of(torch.randn(1, 3, 4), torch.Size([1, 3])) is None


def test_equal_tokens_lose_nothing_by_merging() -> None:
    """Self-attention over copies is that over one of them."""
    net = unet("SD 1.x")
    for part in net.modules():  # every pixel of every map is then the same
        if isinstance(part, torch.nn.Conv2d) and part.kernel_size == (3, 3):
            middle = part.weight[:, :, 1:2, 1:2].clone()
            part.weight.zero_()
            part.weight[:, :, 1:2, 1:2] = middle
    x, said = torch.ones(2, 4, 8, 8), told(net, 2)
    exact = ready(net, TIMES)(x, 900.0, **said)
    assert (
        apart(ready(net, TIMES, lossy=Lossy.read("tome:ratio=0.7"))(x, 900.0, **said), exact) < 1e-5
    )
    x = latents(2)
    exact = ready(net, TIMES)(x, 900.0, **said)
    assert apart(ready(net, TIMES, lossy=Lossy.read("tome"))(x, 900.0, **said), exact) > 1e-6


@pytest.mark.parametrize("name", ["SD 1.x", "SDXL", "LCM"])
def test_products_in_bfloat16_give_float32(name: str) -> None:
    net = unet(name)
    said, x = told(net, 2), latents(2)
    out = ready(net, TIMES, lossy=Lossy.read("bf16"))(x, 900.0, **said)
    assert out.dtype == torch.float32
    assert 1e-5 < apart(out, net(x, 900.0, **said)) < 3e-2
    assert net.conv_in.weight.dtype == torch.float32


def test_what_cannot_act_is_refused() -> None:
    net = unet("SD 1.x")
    for text, why in (("deepcache:near=4", "at most 3 here"), ("tome", "takes weights")):
        if why == "takes weights":
            net.mid_block.register_forward_hook(lambda *_: None)
            why = "a layer has a hook"
        with pytest.raises(InputError, match=why):
            ready(net, TIMES, lossy=Lossy.read(text))
    with pytest.raises(InputError, match="computes in bfloat16"):
        ready(unet("SD 1.x").bfloat16(), TIMES, lossy=Lossy.read("bf16"))
    with pytest.raises(InputError, match="--engine compile"):
        ready(unet("SD 1.x"), TIMES, "compile", Lossy.read("tome"))
    net = unet("SD 1.x")
    call = ready(net, TIMES, lossy=Lossy.read("tome"))
    with pytest.raises(InputError, match="where gradients are asked for"):
        call(latents(2).requires_grad_(), 900.0, **told(net, 2))


ALL = "deepcache:every=2,near=1+tome:ratio=0.5,levels=1+tgate:after=0.5+bf16"


def drawn(run: sdcore.Run) -> Tensor:
    with torch.inference_mode():
        *_, step = run
    return step.x_next


@pytest.mark.parametrize("scheduler", ["dpmpp_2m", "heun", "euler_a"])
@pytest.mark.parametrize("engine", ["auto", "plain"])
def test_a_picture_is_drawn_again_and_alone_as_in_its_batch(
    tiny_path: Path, scheduler: str, engine: str
) -> None:
    sd = sdcore.load(tiny_path, device="cpu", engine=engine)
    how = {"scheduler": scheduler, "steps": 6, "guidance": "cfg+interval:low=1"}
    run = sd.prepare(["red", "a blue house"], seeds=[3], lossy=ALL, **how)
    both = drawn(run)
    assert run.settings[1].lossy == ALL
    next(iter(run))  # a loop that was left in its middle leaves nothing behind
    assert torch.equal(drawn(run), both)
    alone = sd.prepare("a blue house", seeds=[3], lossy=run.settings[1].lossy, **how)
    assert torch.equal(drawn(alone), both[1:])
    exact = drawn(sd.prepare(["red", "a blue house"], seeds=[3], **how))
    assert 1e-6 < apart(both, exact) < 1


def test_a_request_that_cannot_be_met(tiny_path: Path) -> None:
    sd = sdcore.load(tiny_path, device="cpu")
    with pytest.raises(InputError, match="FreeU stands in the middle"):
        sd.prepare("red", lossy="deepcache", freeu="1.5,1.6,0.9,0.2")
    lean = replace(sd, memory="sliced")
    sdcore.memory.apply(
        lean.modules, "sliced", lean.device, dict.fromkeys(lean.modules, lean.dtype)
    )
    with pytest.raises(InputError, match="slices attention"):
        lean.prepare("red", lossy="deepcache")
