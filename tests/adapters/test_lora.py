"""LoRA and its kin: every spelling, every formula written out once more, and what comes back."""

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sdcore.adapters.lora import names_layer
from sdcore.errors import InputError
from sdcore.loading import load
from sdcore.pipeline import StableDiffusion
from sdcore.strengths import parse_lora
from tests.adapters.conftest import (
    BLOCK,
    CONVS,
    TEXT,
    UNET,
    Save,
    factors,
    flat,
    latents,
    rand,
    weight,
)

PLACES = [*(f"unet.{n}" for n in UNET + CONVS), *(f"text_encoder.{n}" for n in TEXT)]


def kohya(place: str) -> str:
    component, _, name = place.partition(".")
    return f"{'lora_unet' if component == 'unet' else 'lora_te'}_{flat(name)}"


def kohya_lora(sd: StableDiffusion, rank: int = 3, alpha: float | None = 2.0, seed: int = 0) -> Any:
    """Tensors in kohya's spelling, and dW of every place by plain loops over numpy."""
    tensors, wanted = {}, {}
    for n, place in enumerate(PLACES):
        shape = weight(sd, place).shape
        down, up = factors(shape, rank, seed + n)
        tensors[f"{kohya(place)}.lora_down.weight"] = down
        tensors[f"{kohya(place)}.lora_up.weight"] = up
        if alpha is not None:
            tensors[f"{kohya(place)}.alpha"] = torch.tensor(alpha)
        wanted[place] = by_hand(up, down, shape) * (1 if not alpha else alpha / rank)
    return tensors, wanted


def by_hand(up: Tensor, down: Tensor, shape: torch.Size) -> np.ndarray:
    u, d = up.double().numpy(), down.double().numpy()
    out = np.zeros(shape)
    for o, r in itertools.product(range(shape[0]), range(d.shape[0])):
        out[o] += u[o, r].item() * d[r].reshape(shape[1:])
    return out


def check(
    sd: StableDiffusion, new: StableDiffusion, wanted: dict[str, np.ndarray], strength: float = 1
) -> None:
    """These weights have changed by strength * wanted, and no other weight at all."""
    for place, delta in wanted.items():
        got = (weight(new, place).double() - weight(sd, place).double()).numpy()
        assert np.abs(got - strength * delta).max() < 1e-6, place
    for component in ("unet", "text_encoder"):
        old = getattr(sd, component).state_dict()
        for key, tensor in getattr(new, component).state_dict().items():
            if f"{component}.{key.removesuffix('.weight')}" not in wanted:
                assert tensor.data_ptr() == old[key].data_ptr(), key


# -- spellings --------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [None, 0.0, 2.0])
@pytest.mark.parametrize("strength", [1.0, 0.8, -0.5])
def test_kohya(sd: StableDiffusion, save: Save, alpha: float | None, strength: float) -> None:
    tensors, wanted = kohya_lora(sd, alpha=alpha)
    check(sd, sd.with_lora(save(tensors), strength), wanted, strength)


def respelt(sd: StableDiffusion, spell: Callable[[str, str], str]) -> dict[str, Tensor]:
    tensors = {}
    for n, place in enumerate(PLACES):
        down, up = factors(weight(sd, place).shape, 3, n)
        tensors |= {spell(place, "down"): down, spell(place, "up"): up}
    return tensors


def peft(place: str, part: str) -> str:
    return f"{place}.lora_{'A' if part == 'down' else 'B'}.weight"


def peft_named(place: str, part: str) -> str:
    return f"{place}.lora_{'A' if part == 'down' else 'B'}.default_0.weight"


def flattened_clip(place: str, part: str) -> str:
    return peft(place.replace(".text_model", ""), part)


def diffusers_linear(place: str, part: str) -> str:
    return f"{place}.lora{'' if place.startswith('unet') else '_linear_layer'}.{part}.weight"


def diffusers_processor(place: str, part: str) -> str:
    head, _, last = place.removesuffix(".0").rpartition(".")
    if last in ("to_q", "to_out"):
        return f"{head}.processor.{last}_lora.{part}.weight"
    if last == "q_proj":
        return f"{head}.to_q_lora.{part}.weight"
    return diffusers_linear(place, part)


def without_component(place: str, part: str) -> str:
    return peft(place.partition(".")[2], part)


def peft_of_one_network(place: str, part: str) -> str:
    return f"base_model.model.{without_component(place, part)}"


@pytest.mark.parametrize(
    "spell",
    [
        peft,
        peft_named,
        flattened_clip,
        diffusers_linear,
        diffusers_processor,
        without_component,
        peft_of_one_network,
        lambda place, part: f"{kohya(place)}.lora_{part}.weight",
        lambda place, part: f"{kohya(place).replace('lora_te_', 'lora_te1_')}.lora_{part}.weight",
    ],
)
def test_spellings(sd: StableDiffusion, save: Save, spell: Callable[[str, str], str]) -> None:
    _, wanted = kohya_lora(sd, alpha=None)
    new = sd.with_lora(save(respelt(sd, spell)))
    assert new.loras[0].unmatched == ()
    check(sd, new, wanted)


def test_pickled_bin(sd: StableDiffusion, tmp_path: Path) -> None:
    torch.save(respelt(sd, diffusers_processor), tmp_path / "pytorch_lora_weights.bin")
    _, wanted = kohya_lora(sd, alpha=None)
    check(sd, sd.with_lora(tmp_path), wanted)  # the folder


def test_alpha_in_pefts_metadata(sd: StableDiffusion, save: Save) -> None:
    _, wanted = kohya_lora(sd, alpha=None)
    notes = {"unet.lora_alpha": 6, "unet.r": 3, "unet.alpha_pattern": {"attn1.to_q": 12}}
    notes |= {"text_encoder.lora_alpha": 6, "text_encoder.r": 3, "text_encoder.use_rslora": True}
    path = save(respelt(sd, peft), metadata={"lora_adapter_metadata": json.dumps(notes)})
    scales = {p: 2.0 if p.startswith("unet") else 6 / 3**0.5 for p in PLACES}
    scales[f"unet.{BLOCK}.attn1.to_q"] = 4.0
    check(sd, sd.with_lora(path), {p: scales[p] * delta for p, delta in wanted.items()})


def test_pefts_configuration_beside_the_file(sd: StableDiffusion, save: Save) -> None:
    _, wanted = kohya_lora(sd, alpha=None)
    path = save(respelt(sd, peft_of_one_network), "adapter_model")
    (path.parent / "adapter_config.json").write_text(json.dumps({"r": 3, "lora_alpha": 9}))
    check(sd, sd.with_lora(path.parent), {p: 3.0 * delta for p, delta in wanted.items()})


# -- kinds ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "notes",
    [
        '{"r": 4, "lora_alpha": 2, "rank_pattern": {"(": 1}}',
        '{"r": 4, "lora_alpha": 2, "alpha_pattern": {"*": 1}}',
        '{"r": 4, "lora_alpha": 2, "alpha_pattern": {"(.*)*(.*)*(.*)*(.*)*!": 1}}',
        '{"r": 4, "lora_alpha": 2, "alpha_pattern": {"([a-z_.0-9]+)+!": 1}}',
        '{"r": 4, "lora_alpha": 2, "alpha_pattern": 5}',
        '{"r": 4, "lora_alpha": 2, "alpha_pattern": [1]}',
        '{"r": 4, "lora_alpha": "2"}',
        '{"r": 4, "lora_alpha": NaN}',
        f'{{"r": 4, "lora_alpha": 1{"0" * 400}}}',
        '{"r": 4, "r": 8}',
        "[" * 100_000,
    ],
)
def test_a_strangers_configuration_that_makes_no_sense(
    sd: StableDiffusion, save: Save, notes: str
) -> None:
    """One line; a regular expression of theirs is never run, for some take for ever."""
    tensors, _ = kohya_lora(sd, alpha=None)
    file = save(tensors, metadata={"lora_adapter_metadata": notes})
    with pytest.raises(InputError, match=re.escape(str(file))):
        sd.with_lora(file)


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("a.0.to_q", True),
        ("to_q", True),
        ("o_q", False),
        ("^blocks.a.0.to_q", True),
        ("^a.0.to_q", False),
        (r"a\.0\.to_q$", True),
        (".*.to_q", True),
        ("blocks.*", True),
        ("blocks.a", False),
    ],
)
def test_the_patterns_that_peft_writes(pattern: str, fits: bool) -> None:
    """As its own `re.match(rf"(.*\\.)?({pattern})$", name)` has it."""
    name = "blocks.a.0.to_q"
    assert names_layer(pattern, name, "rank_pattern") is fits
    assert (re.match(rf"(.*\.)?({pattern})$", name) is not None) is fits


def one(sd: StableDiffusion, save: Save, place: str, parts: dict[str, Tensor]) -> np.ndarray:
    """What an adapter of these parts adds to one weight."""
    new = sd.with_lora(save({f"{kohya(place)}.{name}": part for name, part in parts.items()}))
    return (weight(new, place).double() - weight(sd, place).double()).numpy()


def close(got: np.ndarray, wanted: np.ndarray) -> bool:
    assert np.abs(wanted).max() > 1e-3
    return bool(np.abs(got - wanted).max() < 2e-6)


CONV = "unet.mid_block.resnets.0.conv1"
LINEAR = f"unet.{UNET[0]}"


def test_locon_with_a_core(sd: StableDiffusion, save: Save) -> None:
    out, channels, k, _ = weight(sd, CONV).shape
    down, mid, up = rand(2, channels, 1, 1), rand(2, 2, k, k, seed=1), rand(out, 2, 1, 1, seed=2)
    parts = {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up}
    got = one(sd, save, CONV, parts | {"alpha": torch.tensor(1.0)})
    d, m, u = (t.double().numpy() for t in (down, mid, up))
    wanted = np.zeros(got.shape)
    for a, b in itertools.product(range(2), range(2)):
        wanted += u[:, a, None] * d[b, :, 0, 0][None, :, None, None] * m[a, b]
    assert close(got, wanted / 2)


@pytest.mark.parametrize("place", [LINEAR, CONV])
def test_loha(sd: StableDiffusion, save: Save, place: str) -> None:
    w = weight(sd, place)
    out, inner = w.shape[0], w[0].numel()
    sides = {"hada_w1_a": (out, 3), "hada_w1_b": (3, inner)}
    sides |= {"hada_w2_a": (out, 3), "hada_w2_b": (3, inner)}
    parts = {name: rand(*s, seed=n, size=0.5) for n, (name, s) in enumerate(sides.items())}
    got = one(sd, save, place, parts | {"alpha": torch.tensor(1.5)})
    p = {name: part.double().numpy() for name, part in parts.items()}
    product = (p["hada_w1_a"] @ p["hada_w1_b"]) * (p["hada_w2_a"] @ p["hada_w2_b"])
    assert close(got, product.reshape(w.shape) / 2)


def test_loha_with_cores(sd: StableDiffusion, save: Save) -> None:
    out, channels, k, _ = weight(sd, CONV).shape
    parts, wanted = {}, np.ones(weight(sd, CONV).shape)
    for n in (1, 2):
        core, a, b = (
            rand(2, 2, k, k, seed=n, size=1.0),
            rand(2, out, seed=n + 5, size=1.0),
            rand(2, channels, seed=n + 9, size=1.0),
        )
        parts |= {f"hada_t{n}": core, f"hada_w{n}_a": a, f"hada_w{n}_b": b}
        t, a, b = (x.double().numpy() for x in (core, a, b))
        wanted *= sum(
            a[i][:, None, None, None] * b[j][None, :, None, None] * t[i, j]
            for i, j in itertools.product(range(2), range(2))
        )
    assert np.abs(one(sd, save, CONV, parts) - wanted).max() < 1e-5


@pytest.mark.parametrize("factored", ["", "1", "2", "12"])
def test_lokr(sd: StableDiffusion, save: Save, factored: str) -> None:
    out, inner = weight(sd, LINEAR).shape
    shapes = {"1": (2, 4), "2": (out // 2, inner // 4)}
    parts, whole = {"alpha": torch.tensor(3.0)}, {}
    for n, (rows, columns) in shapes.items():
        if n in factored:
            a, b = rand(rows, 2, seed=int(n)), rand(2, columns, seed=int(n) + 5)
            parts |= {f"lokr_w{n}_a": a, f"lokr_w{n}_b": b}
            whole[n] = a.double().numpy() @ b.double().numpy()
        else:
            parts[f"lokr_w{n}"] = rand(rows, columns, seed=int(n))
            whole[n] = parts[f"lokr_w{n}"].double().numpy()
    wanted = np.kron(whole["1"], whole["2"]) * (1.5 if factored else 1)
    assert close(one(sd, save, LINEAR, parts), wanted)


@pytest.mark.parametrize("core", [False, True])
def test_lokr_of_a_convolution(sd: StableDiffusion, save: Save, core: bool) -> None:
    out, channels, k, _ = weight(sd, CONV).shape
    w1, rows, columns = rand(2, 2), out // 2, channels // 2
    if core:
        t, a, b = rand(2, 2, k, k, seed=1), rand(2, rows, seed=2), rand(2, columns, seed=3)
        parts = {"lokr_t2": t, "lokr_w2_a": a, "lokr_w2_b": b}
        w2 = np.einsum("ijkl,io,jc->ockl", *(x.double().numpy() for x in (t, a, b)))
    else:
        parts = {"lokr_w2": rand(rows, columns, k, k, seed=1)}
        w2 = parts["lokr_w2"].double().numpy()
    wanted = np.zeros(weight(sd, CONV).shape)
    for i, j in itertools.product(range(2), range(2)):
        block = np.s_[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
        wanted[block] = w1[i, j].item() * w2
    got = one(sd, save, CONV, {"lokr_w1": w1, **parts})
    assert np.abs(got - wanted).max() < 1e-6


@pytest.mark.parametrize("place", [LINEAR, CONV])
@pytest.mark.parametrize("along", ["outputs", "inputs"])
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_dora(sd: StableDiffusion, save: Save, place: str, along: str, strength: float) -> None:
    w = weight(sd, place)
    down, up = factors(w.shape, 3, 0)
    ones = (1,) * (w.ndim - 2)
    count = w.shape[0] if along == "outputs" else w.shape[1]
    scale = 1 + rand(count)
    shaped = scale.view(count, 1, *ones) if along == "outputs" else scale.view(1, count, *ones)
    parts = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(6.0)}
    parts["dora_scale"] = shaped
    path = save({f"{kohya(place)}.{name}": part for name, part in parts.items()})
    new = sd.with_lora(path, strength)
    v = w.double().numpy() + 2 * by_hand(up, down, w.shape)
    wanted = np.empty_like(v)
    for i in range(count):
        at = np.s_[i] if along == "outputs" else np.s_[:, i]
        wanted[at] = scale[i].item() * v[at] / np.sqrt((v[at] ** 2).sum())
    wanted = (1 - strength) * w.double().numpy() + strength * wanted
    assert close(weight(new, place).double().numpy(), wanted)


def test_dora_as_peft_writes_it_for_a_convolution(sd: StableDiffusion, save: Save) -> None:
    w = weight(sd, CONV)
    down, up = factors(w.shape, 3, 0)
    parts = {"lora_A.weight": down, "lora_B.weight": up}
    pefts = save(
        {f"{CONV}.{k}": v for k, v in parts.items()}
        | {f"{CONV}.lora_magnitude_vector.weight": 1 + rand(1, len(w), 1, 1)},
        "peft",
    )
    ours = save(
        {f"{CONV}.{k}": v for k, v in parts.items()}
        | {f"{CONV}.dora_scale": 1 + rand(1, len(w), 1, 1).view(-1, 1, 1, 1)},
        "kohya",
    )
    assert torch.equal(weight(sd.with_lora(pefts), CONV), weight(sd.with_lora(ours), CONV))


def test_whole_differences_of_weights_biases_and_norms(sd: StableDiffusion, save: Save) -> None:
    norm, conv = "unet.mid_block.resnets.0.norm1", CONV
    parts = {
        f"{kohya(norm)}.w_norm": rand(*weight(sd, norm).shape),
        f"{kohya(norm)}.b_norm": rand(*weight(sd, norm).shape, seed=1),
        f"{kohya(conv)}.diff": rand(*weight(sd, conv).shape, seed=2),
        f"{kohya(conv)}.diff_b": rand(len(weight(sd, conv)), seed=3),
    }
    for merged in (True, False):
        new = sd.with_lora(save(parts), 0.5, merged=merged)
        old, now = (m.unet.mid_block.resnets[0] for m in (sd, new))
        conv1 = now.conv1 if merged else now.conv1.base
        for got, before, part in [
            (now.norm1.weight, old.norm1.weight, f"{kohya(norm)}.w_norm"),
            (now.norm1.bias, old.norm1.bias, f"{kohya(norm)}.b_norm"),
            (conv1.bias, old.conv1.bias, f"{kohya(conv)}.diff_b"),
        ]:
            assert (got - before - 0.5 * parts[part]).abs().max() < 1e-6
        x, added = rand(1, 16, 4, 4), (f"{kohya(conv)}.diff", f"{kohya(conv)}.diff_b")
        wanted = old.conv1(x) + 0.5 * F.conv2d(x, *(parts[name] for name in added), padding=1)
        assert (now.conv1(x) - wanted).abs().max() < 1e-5


# -- together, apart --------------------------------------------------------------------------


def mixed(sd: StableDiffusion, save: Save) -> list[Path]:
    """One file of every kind."""
    lora, _ = kohya_lora(sd, seed=3)
    out, inner = weight(sd, LINEAR).shape
    loha = {"w1_a": (out, 2), "w1_b": (2, inner), "w2_a": (out, 2), "w2_b": (2, inner)}
    channels = weight(sd, CONV).shape[1]
    other = {
        **{f"{kohya(LINEAR)}.hada_{k}": rand(*s, seed=n) for n, (k, s) in enumerate(loha.items())},
        f"{kohya(CONV)}.lora_down.weight": rand(2, channels, 1, 1),
        f"{kohya(CONV)}.lora_mid.weight": rand(2, 2, 3, 3),
        f"{kohya(CONV)}.lora_up.weight": rand(len(weight(sd, CONV)), 2, 1, 1),
    }
    dora = {k: v for k, v in lora.items() if kohya(f"text_encoder.{TEXT[0]}") in k}
    q = f"text_encoder.{TEXT[0]}"
    dora[f"{kohya(q)}.dora_scale"] = 1 + rand(len(weight(sd, q)), 1)
    return [save(lora, "lora"), save(other, "other"), save(dora, "dora")]


def test_several_add_up_in_any_order(sd: StableDiffusion, save: Save) -> None:
    (a, deltas_a), (b, deltas_b) = kohya_lora(sd), kohya_lora(sd, rank=5, seed=9)
    paths = save(a, "a"), save(b, "b")
    both = sd.with_lora(paths[0], 0.8).with_lora(paths[1], -0.3)
    check(sd, both, {p: 0.8 * deltas_a[p] - 0.3 * deltas_b[p] for p in PLACES})
    turned = sd.with_lora(paths[1], -0.3).with_lora(paths[0], 0.8)
    assert (latents(both) - latents(turned)).abs().max() < 1e-5


def test_component_strengths(sd: StableDiffusion, save: Save) -> None:
    tensors, wanted = kohya_lora(sd)
    new = sd.with_lora(save(tensors), unet=0.5, text=0)
    assert new.text_encoder is sd.text_encoder
    check(sd, new, {p: 0.5 * delta for p, delta in wanted.items() if p.startswith("unet")})


def test_taken_away_again_nothing_is_left(sd: StableDiffusion, save: Save) -> None:
    before = {k: v.clone() for k, v in sd.unet.state_dict().items()}
    plain = latents(sd)
    paths = mixed(sd, save)
    new = sd.with_lora(paths[0]).with_lora(paths[1], 0.5)
    assert not torch.equal(latents(new), plain)
    back = new.without_loras()
    assert back.unet is sd.unet
    assert back.text_encoder is sd.text_encoder
    assert all(torch.equal(v, before[k]) for k, v in sd.unet.state_dict().items())
    assert torch.equal(latents(back), plain)
    assert torch.equal(latents(sd.with_lora(paths[0], 0.0)), plain)


def test_unmerged_gives_the_same_picture(sd: StableDiffusion, save: Save) -> None:
    merged = beside = sd
    for path in mixed(sd, save):
        merged, beside = merged.with_lora(path, 0.7), beside.with_lora(path, 0.7, merged=False)
    assert torch.equal(beside.unet.mid_block.resnets[0].conv1.weight, weight(sd, CONV))
    plain, one, other = latents(sd), latents(merged), latents(beside)
    assert (one - plain).abs().max() > 0.01
    assert (one - other).abs().max() / one.abs().max() < 2e-6
    bare = beside.without_loras()
    assert torch.equal(latents(bare), plain)


def test_in_half_precision(tiny_path: Path, sd: StableDiffusion, save: Save) -> None:
    half = load(tiny_path, "cpu", "bfloat16")
    tensors, wanted = kohya_lora(sd)
    new = half.with_lora(save(tensors))
    for place, delta in wanted.items():
        exact = weight(half, place).double() + torch.from_numpy(delta)
        assert torch.equal(weight(new, place), exact.to(torch.float32).to(torch.bfloat16)), place
    # Beside the layers nothing is rounded to the weights' steps; bfloat16 has 8 bits.
    one, beside = latents(new), latents(half.with_lora(save(tensors), merged=False))
    assert (one - beside).abs().max() / one.abs().max() < 0.03


def test_a_picture_does_not_depend_on_its_batch(sd: StableDiffusion, save: Save) -> None:
    for merged in (True, False):
        new = sd
        for path in mixed(sd, save):
            new = new.with_lora(path, merged=merged)
        whole = new.prepare(["red", "blue"], seeds=[0, 1], steps=2)
        together = [step.x_next for step in whole][-1]
        apart = [[step.x_next for step in run][-1] for run in whole.split(1)]
        assert torch.equal(torch.cat(apart), together)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("memory", ["balanced", "low"])
def test_every_mode_of_memory_draws_the_same(
    tiny_path: Path, sd: StableDiffusion, save: Save, memory: str, dtype: str
) -> None:
    paths = mixed(sd, save)
    fast, lean = (load(tiny_path, "cpu", dtype, mode, "plain") for mode in ("fast", memory))
    plain = latents(fast)
    for merged in (True, False):
        one = fast.with_lora(paths[0], merged=merged)
        other = lean.with_lora(paths[0], merged=merged)
        assert torch.equal(latents(one), latents(other))
        assert torch.equal(latents(lean), plain)
        assert torch.equal(latents(other.without_loras()), plain)
        assert torch.equal(latents(one), latents(other))
    every = lean
    for path in paths:
        every = every.with_lora(path, merged=False)
    assert latents(every).isfinite().all()


def test_the_settings_name_it(sd: StableDiffusion, save: Save) -> None:
    path = save(kohya_lora(sd)[0])
    new = sd.with_lora(path, 0.8).with_lora(path, unet=1, text=0.5).with_lora(path, 1 / 30000)
    told = new.prepare("red", steps=1).settings[0].loras
    assert told[:2] == (f"{path}:0.8", f"{path}:unet=1,text=0.5")
    assert parse_lora(told[2]) == (str(path), 1 / 30000, 1 / 30000)  # to the last digit


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ("a.safetensors", ("a.safetensors", 1.0, 1.0)),
        ("a.safetensors:0.8", ("a.safetensors", 0.8, 0.8)),
        ("a.safetensors:0", ("a.safetensors", 0.0, 0.0)),
        ("a:-1.5", ("a", -1.5, -1.5)),
        ("c:/x/a.safetensors:.5", ("c:/x/a.safetensors", 0.5, 0.5)),
        ("c:/x/a.safetensors", ("c:/x/a.safetensors", 1.0, 1.0)),
        ("a:unet=0.8,text=0.2", ("a", 0.8, 0.2)),
        ("a:text=0", ("a", 1.0, 0.0)),
        ("a:unet=1e-05,text=0.123456789", ("a", 1e-5, 0.123456789)),
    ],
)
def test_how_it_is_typed(spec: str, wanted: tuple) -> None:
    assert parse_lora(spec) == wanted


# -- refusals ---------------------------------------------------------------------------------


def test_what_fits_nothing_is_listed(sd: StableDiffusion, save: Save) -> None:
    tensors, _ = kohya_lora(sd)
    more = {"lora_unet_nowhere.lora_down.weight": rand(1, 1), "oft_blocks": rand(1)}
    (line,) = sd.with_lora(save(tensors | more)).prepare("red", steps=1).warnings
    assert "2 keys fit no layer of this model and were left out: " in line
    assert "lora_unet_nowhere.lora_down.weight" in line


Q = kohya(LINEAR)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"x.lora_down.weight": rand(1, 1)}, "fits no layer of this model: 1 keys: x.lora_down"),
        ({f"{Q}.lora_down.weight": rand(1, 8)}, rf"unet\.{LINEAR[5:]}: incomplete: it has down"),
        ({f"{Q}.alpha": rand(1)}, "incomplete: it has alpha"),
        (
            {f"{Q}.lora_down.weight": rand(2, 9), f"{Q}.lora_up.weight": rand(8, 2)},
            r"made for another shape than \[8, 8\]: down \[2, 9\], up \[8, 2\]",
        ),
        (
            {f"{Q}.lora_down.weight": rand(2, 4), f"{Q}.lora_up.weight": rand(16, 2)},
            r"another shape than \[8, 8\]",
        ),
        (
            {f"{Q}.lora_down.weight": rand(2, 8) / 0, f"{Q}.lora_up.weight": rand(8, 2)},
            "its down is not finite",
        ),
        ({"model.weight": rand(1, 1)}, "is no adapter: it holds 1 tensors: model.weight"),
        ({}, "is no adapter: it holds nothing"),
        ({f"{Q}.alpha": rand(2)}, "its alpha is 2 numbers"),
        ({f"{Q}.diff_b": rand(8)}, "a bias that this layer does not have"),
        (
            {f"{Q}.diff": rand(8, 8), f"{Q}.dora_scale": rand(5, 1)},
            r"5 magnitudes for a weight of \[8, 8\]",
        ),
    ],
)
def test_what_cannot_be_applied(
    sd: StableDiffusion, save: Save, tensors: dict[str, Tensor], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        sd.with_lora(save(tensors))
    assert "\n" not in str(caught.value)


def test_files_that_are_none(sd: StableDiffusion, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no adapter at .*: there is no such file$"):
        sd.with_lora(tmp_path / "nowhere.safetensors")
    with pytest.raises(InputError, match="known are picturebook-cyanotype, picturebook-few-steps"):
        sd.with_lora("picturebook-few-stps")
    with pytest.raises(InputError, match="picturebook-teal is a learned word, and no LoRA"):
        sd.with_lora("picturebook-teal")
    with pytest.raises(InputError, match=r"holds none of pytorch_lora_weights"):
        sd.with_lora(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="neither a safetensors nor a torch file"):
        sd.with_lora(tmp_path / "a.safetensors")
    torch.save({"x": Path("p")}, tmp_path / "a.bin")
    with pytest.raises(InputError, match="which is code: pickled code is never run"):
        sd.with_lora(tmp_path / "a.bin")
    with pytest.raises(InputError, match="finite"):
        sd.with_lora(tmp_path / "a.bin", float("nan"))
