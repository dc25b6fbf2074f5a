import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import sdcore
from scripts import adherence, contact_sheet
from scripts.adherence import Row, in_order, mark, matched, place, shares
from scripts.train import examiner as ex
from scripts.train import world
from scripts.train.examiner import Found, Reading
from scripts.train.fit import Schedule
from scripts.train.lowrank import LowRank
from scripts.train.world import Description, Thing, canonical_caption
from sdcore.images import to_tensor

HOUSE, TREE = Thing("house", "red", "small"), Thing("tree", "blue", "medium")
ONE = Description("snow", (HOUSE,), place="left")
BESIDE = Description("snow", (HOUSE, TREE), relation="left of")
OVER = Description("snow", (HOUSE, TREE), relation="above")


def some(count: int) -> list[Description]:
    rng = np.random.default_rng(5)
    return [ex.any_description(rng) for _ in range(count)]


def perfect(description: Description, seed: int = 0) -> Reading:
    """What an examiner that makes no mistakes reads from the renderer's picture."""
    boxes = world.layout(description, np.random.default_rng([7, seed]))
    found = [
        Found(thing, box.x, box.top + box.height / 2)
        for thing, box in zip(description.things, boxes, strict=True)
    ]
    return Reading(description.scene, tuple(found[:: -1 if seed % 2 else 1]))


def all_right(asked: Description, *found: Found, scene: str = "snow") -> bool:
    return shares([mark(asked, Reading(scene, found))])["all right"] == 1


# The prompts


def test_prompts_begin_with_held_out_pairs_only():
    for held_out in (True, False):
        for each in adherence.descriptions(300, held_out):
            first, *others = ((t.object, t.colour) for t in each.things)
            assert (first in world.HELD_OUT) == held_out
            assert not set(others) & set(world.HELD_OUT)


def test_prompts_ask_for_one_thing_and_two_in_turn_and_never_change():
    asked = adherence.descriptions(40, True)
    assert [len(d.things) for d in asked] == [1, 2] * 20
    assert asked == adherence.descriptions(60, True)[:40]
    assert asked != adherence.descriptions(40, False)


def test_prompts_cover_the_words():
    asked = adherence.descriptions(200, True)
    assert {(d.things[0].object, d.things[0].colour) for d in asked} == set(world.HELD_OUT)
    assert {d.place for d in asked} == {*world.PLACES, None}
    assert {d.relation for d in asked} == {*world.RELATIONS, None}
    assert {d.scene for d in asked} == set(world.SCENES)


# Marking


def test_what_the_renderer_draws_is_all_right():
    asked = some(1500)
    marks = [mark(d, perfect(d, i)) for i, d in enumerate(asked)]
    assert set(shares(marks).values()) == {1.0}
    assert {len(m) for m in marks} == {6}
    for d, m in zip(asked, marks, strict=True):
        assert ("place" in m) == (len(d.things) == 1) == ("order" not in m)
        assert len(m["object"]) == len(m["colour"]) == len(m["size"]) == len(d.things)


def test_answers_to_other_questions_are_right_by_chance_only():
    asked = [d for d in some(4000) if d.place]
    other = asked[1:] + asked[:1]
    found = shares([mark(d, perfect(o)) for d, o in zip(asked, other, strict=True)])
    expected = {"scene": 1 / 8, "object": 1 / 12, "colour": 1 / 8, "size": 1 / 3, "place": 1 / 3}
    for ability, chance in expected.items():
        assert found[ability] == pytest.approx(chance, abs=4 * math.sqrt(0.25 / len(asked)))
    assert found["all right"] < 0.003
    assert found["order"] is None


def test_of_two_wrong_things_the_luckier_pairing_counts_and_order_is_rarely_right():
    asked = [d for d in some(4000) if d.relation]
    other = asked[1:] + asked[:1]
    found = shares([mark(d, perfect(o)) for d, o in zip(asked, other, strict=True)])
    assert 1 / 12 < found["object"] < 0.17
    assert 1 / 8 < found["colour"] < 0.22
    assert 0.05 < found["order"] < 0.25  # the relation is right by 1/2, the rest is luck


def test_marks_of_one_thing():
    assert all_right(ONE, Found(HOUSE, 0.3, 0.7))
    assert not all_right(ONE, Found(HOUSE, 0.3, 0.7), scene="moon")
    assert not all_right(ONE, Found(HOUSE, 0.5, 0.7))
    assert not all_right(ONE)
    for wrong in ({"object": "tree"}, {"colour": "blue"}, {"size": "big"}):
        marks = mark(ONE, Reading("snow", (Found(replace(HOUSE, **wrong), 0.3, 0.7),)))
        assert {what for what, rights in marks.items() if not all(rights)} == set(wrong)


def test_where_no_place_was_said_none_is_marked():
    reading = Reading("snow", (Found(HOUSE, 0.7, 0.5), Found(HOUSE, 0.3, 0.5)))
    marks = mark(ONE, reading, placed=False)
    assert "place" not in marks
    assert marks["number"] == [False]
    assert canonical_caption(ONE, placed=False) == "a small red house in the snow"


def test_an_empty_picture_has_nothing_but_its_scene():
    for asked in (ONE, BESIDE):
        marks = mark(asked, Reading("snow", ()))
        assert marks.pop("scene") == [True]
        assert not any(right for rights in marks.values() for right in rights)


def test_a_thing_too_many_is_a_wrong_number_only():
    marks = mark(ONE, Reading("snow", (Found(HOUSE, 0.3, 0.7), Found(TREE, 0.7, 0.7))))
    assert {what for what, rights in marks.items() if not all(rights)} == {"number"}


def test_of_two_things_one_missing_counts_as_wrong():
    for asked, seen, expected in (
        (BESIDE, HOUSE, [True, False]),
        (BESIDE, TREE, [False, True]),
        (OVER, TREE, [False, True]),
    ):
        marks = mark(asked, Reading("snow", (Found(seen, 0.3, 0.7),)))
        assert marks["object"] == marks["colour"] == marks["size"] == expected
        assert marks["order"] == marks["number"] == [False]


def test_place_is_measured():
    assert [place(Found(HOUSE, x, 0.1)) for x in (0.3, 0.39, 0.41, 0.59, 0.61, 0.8)] == [
        *("left", "left", "middle", "middle", "right", "right")
    ]


LEFT, RIGHT, UP, DOWN = (0.27, 0.6), (0.73, 0.6), (0.5, 0.2), (0.5, 0.7)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    ("asked", "house", "tree", "right"),
    [
        (BESIDE, LEFT, RIGHT, True),
        (BESIDE, RIGHT, LEFT, False),
        (BESIDE, UP, DOWN, False),
        (BESIDE, (0.3, 0.2), (0.6, 0.7), False),  # more above than left of
        (OVER, UP, DOWN, True),
        (OVER, DOWN, UP, False),
        (OVER, LEFT, RIGHT, False),
    ],
)
def test_order(asked: Description, house, tree, right: bool, swapped: bool):
    found = [Found(HOUSE, *house), Found(TREE, *tree)]
    found = found[::-1] if swapped else found  # which one is clearer does not matter
    assert in_order(asked, found) is right
    marks = mark(asked, Reading("snow", tuple(found)))
    assert marks["order"] == [right]
    assert marks["object"] == marks["colour"] == marks["size"] == [True, True]


def test_order_needs_two_things_that_differ():
    same = Found(HOUSE, *LEFT), Found(replace(HOUSE, size="medium"), *RIGHT)
    assert not in_order(BESIDE, same)
    assert not in_order(BESIDE, same[:1])
    assert in_order(BESIDE, (same[0], Found(replace(HOUSE, colour="blue"), *RIGHT)))
    wild = Thing("car", "green", "small")
    assert not in_order(BESIDE, (Found(wild, *LEFT), Found(wild, *RIGHT)))
    assert in_order(BESIDE, (Found(wild, *LEFT), Found(TREE, *RIGHT)))
    assert not in_order(BESIDE, (Found(TREE, *LEFT), Found(wild, *RIGHT)))


def test_things_are_matched_by_likeness_and_only_the_clearest_count():
    house, tree = Found(HOUSE, *RIGHT), Found(TREE, *LEFT)
    assert matched(BESIDE, (tree, house)) == (house, tree)
    assert matched(BESIDE, (tree,)) == (None, tree)
    assert matched(BESIDE, ()) == (None, None)
    assert matched(ONE, (tree, house)) == (tree,)


def test_shares_count_things_and_pictures():
    half = replace(TREE, colour="red")
    readings = [(BESIDE, (HOUSE, half)), (BESIDE, (HOUSE, TREE)), (ONE, (HOUSE,))]
    marks = [
        mark(asked, Reading("snow", tuple(map(Found, things, (0.3, 0.7), (0.5, 0.5)))))
        for asked, things in readings
    ]
    found = shares(marks)
    assert found["colour"] == 4 / 5
    assert found["object"] == found["order"] == found["place"] == found["scene"] == 1
    assert found["all right"] == 2 / 3


def test_lines_of_the_table():
    values = dict.fromkeys((*adherence.ABILITIES, "all right"), 0.5) | {"order": None}
    line = Row("held-out pairs", 20, 7.5, 200, values).line()
    numbers = "50.0 | 50.0 | 50.0 | 50.0 | 50.0 | - | 50.0 | 50.0"
    assert line == f"| held-out pairs | 20 | 7.5 | 200 | {numbers} |"
    blank = Row("renderer", None, None, 1000, values).line()
    lines = [*adherence.header().splitlines(), line, blank]
    assert {one.count("|") for one in lines} == {13}


# The examiner


def ideal_outputs(asked, middles):
    """The outputs that say what is true, with certainty."""
    cells = torch.full((len(asked), sum(ex.SPLIT), ex.CELLS, ex.CELLS), -9.0)
    scenes = torch.full((len(asked), len(world.SCENES)), -9.0)
    for i, (d, at) in enumerate(zip(asked, middles, strict=True)):
        heats = ex.heat(at)
        cells[i, 0] = heats.amax(0).clamp(1e-4, 1 - 1e-4).logit()
        scenes[i, world.SCENES.index(d.scene)] = 9
        for thing, near in zip(d.things, heats, strict=True):
            start = 1
            for what, words in ex.WORDS.items():
                cells[i, start + words.index(getattr(thing, what))][near > 0.5] = 9
                start += len(words)
    return cells, scenes


def middles_of(asked):
    readings = [perfect(d, 2 * i) for i, d in enumerate(asked)]
    return [torch.tensor([[f.x, f.y] for f in r.found]) for r in readings]


def test_things_are_read_from_the_cells_they_are_in():
    asked = some(400)
    middles = middles_of(asked)
    cells, _ = ideal_outputs(asked, middles)
    for d, at, each in zip(asked, middles, cells, strict=True):
        found = ex._things(each)
        assert len(found) == len(d.things)
        assert {f.thing for f in found} == set(d.things)
        for f in found:
            x, y = at[d.things.index(f.thing)].tolist()
            assert (f.x, f.y) == pytest.approx((x, y), abs=0.02)
        reading = Reading(d.scene, tuple(found))
        assert all(right for rights in mark(d, reading).values() for right in rights)


def test_the_closest_two_things_are_two():
    flat = Thing("fish", "red", "small"), Thing("car", "blue", "small")
    for relation in world.RELATIONS:
        asked = [Description("sea", flat, relation=relation)] * 200
        cells, _ = ideal_outputs(asked, middles_of(asked))
        assert {len(ex._things(each)) for each in cells} == {2}


def test_nothing_is_found_where_no_heat_is():
    cells = torch.randn(sum(ex.SPLIT), ex.CELLS, ex.CELLS, generator=torch.manual_seed(0))
    cells[0] = -2.0
    assert ex._things(cells) == []


def test_the_loss_is_least_at_the_truth():
    asked = some(40)
    middles = middles_of(asked)
    outputs = ideal_outputs(asked, middles)
    loss, right = ex.lesson_loss(outputs, asked, middles)
    assert right == 1
    for wrong_asked, wrong_middles in (
        ([replace(d, scene="moon") for d in asked], middles),
        ([replace(d, things=tuple(replace(t, colour="red") for t in d.things)) for d in asked],)
        + (middles,),
        (asked, [1 - at for at in middles]),
    ):
        worse, less = ex.lesson_loss(outputs, wrong_asked, wrong_middles)
        assert worse > loss + 1
        assert less < 1


def test_a_specimen_knows_where_its_things_are():
    d = Description("moon", (Thing("ball", "red", "medium"),), place="right")
    each = ex.specimen(d, [4])
    reds = (each.pixels.astype(int) * [2, -1, -1]).sum(axis=2) > 200
    y, x = np.nonzero(reds)
    ((middle_x, middle_y),) = each.middles
    assert x.mean() / 128 == pytest.approx(middle_x, abs=0.03)
    assert y.mean() / 128 == pytest.approx(middle_y, abs=0.03)


def test_lessons_show_held_out_pairs_as_often_as_others():
    things = [t for d in some(8000) for t in d.things]
    share = np.mean([(t.object, t.colour) in world.HELD_OUT for t in things])
    assert share == pytest.approx(10 / 96, abs=0.01)
    assert np.mean([t.size == "big" for t in things]) == pytest.approx(1 / 9, abs=0.01)


def test_augmented_pictures_move_as_told():
    x = torch.full((32, 3, 128, 128), -1.0)
    x[:, :, 44:84, 44:84] = 1
    y, shift = ex.augment(x, torch.Generator().manual_seed(3))
    again, _ = ex.augment(x, torch.Generator().manual_seed(3))
    assert torch.equal(y, again)
    assert 0.03 < shift.abs().max() <= 0.05
    centres = (torch.arange(128) + 0.5) / 128
    weight = (y.mean(1) > 0).float()
    for axis, dim in ((0, 1), (1, 2)):
        mass = weight.sum(dim)
        seen = (mass * centres).sum(1) / mass.sum(1)
        assert torch.allclose(seen - 0.5, shift[:, axis], atol=0.01)


def test_augmented_colours_keep_their_names():
    paints = torch.tensor(list(world.PAINTS.values())) / 127.5 - 1
    for seed in range(20):
        flat = paints[:, :, None, None].expand(-1, -1, 128, 128)
        seen = ex.augment(flat, torch.Generator().manual_seed(seed))[0].mean(dim=(2, 3))
        assert torch.cdist(seen, paints).argmin(1).tolist() == list(range(len(paints)))


def test_an_untrained_examiner_knows_nothing():
    """Noise and unread pictures: hardly ever all right, whatever is asked."""
    asked = some(24)
    noise = np.random.default_rng(0).integers(0, 256, (24, 128, 128, 3), dtype=np.uint8)
    readings = ex.read(ex.new_examiner().eval(), [ex.Image.fromarray(n) for n in noise])
    found = shares([mark(d, r) for d, r in zip(asked, readings, strict=True)])
    assert found["scene"] < 0.4
    assert found["object"] < 0.3
    assert found["all right"] == 0


def test_training_goes_on_where_it_stopped(tmp_path: Path):
    def trained(folder: str, *stops: int) -> dict[str, torch.Tensor]:
        (tmp_path / folder).mkdir()
        for steps in stops:
            student = ex.new_examiner()
            whole = Schedule(steps=steps, lr=1e-3, warmup=1, flat=1 - 1e-9)
            ex.learn(student, whole, tmp_path / folder / "examiner.pt", batch=2, pool=3)
        return student.state_dict()

    straight, resumed = trained("a", 3), trained("b", 2, 3)
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)
    assert any(not torch.equal(straight[k], v) for k, v in ex.new_examiner().state_dict().items())


def test_the_examiner_is_kept_and_follows_the_world(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(ex, "SCHEDULE", Schedule(steps=1, lr=1e-3))
    monkeypatch.setattr(ex, "BATCH", 2)
    monkeypatch.setattr(ex, "POOL", 2)
    first = ex.load_examiner(tmp_path)
    assert not first.training
    monkeypatch.setattr(ex, "learn", None)  # nothing is left to learn
    second = ex.load_examiner(tmp_path)
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key])
    monkeypatch.setitem(world.PAINTS, "red", (200, 0, 0))
    with pytest.raises(TypeError):
        ex.load_examiner(tmp_path)


def test_chance_is_local(tmp_path: Path):
    before = torch.get_rng_state(), str(np.random.get_state())
    ex.learn(ex.new_examiner(), Schedule(steps=1, lr=1e-3), tmp_path / "e.pt", 2, 2)
    adherence.descriptions(4, True)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == str(np.random.get_state())


# Drawing


@pytest.fixture(scope="module")
def sd(tiny_path: Path) -> sdcore.StableDiffusion:
    return sdcore.load(tiny_path, "cpu", "float32")


def test_picture_i_is_drawn_with_seed_i_in_any_batch(sd):
    asked = adherence.descriptions(3, True)
    pictures = list(adherence.drawn(sd, asked, batch=2, steps=2, cfg=3))
    for seed, (d, picture) in enumerate(zip(asked, pictures, strict=True)):
        run = sd.prepare(canonical_caption(d), seeds=[seed], steps=2, cfg=3)
        with torch.inference_mode():
            *_, last = run
            assert picture.tobytes() == run.decode(last.x_next)[0].tobytes()


def test_psnr_is_the_mean_of_decibels(sd):
    pictures = [p.resize((32, 32)) for p in adherence.rendered(some(3))]
    after, psnr = adherence.reconstructed(sd, pictures)
    each = [
        10 * math.log10(1 / ((to_tensor(a) - to_tensor(b)) / 2).square().mean().item())
        for a, b in zip(after, pictures, strict=True)
    ]
    assert psnr == pytest.approx(np.mean(each), abs=0.02)  # after has been rounded


def test_the_command(tiny_path: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(adherence, "RENDERED", 4)
    monkeypatch.setattr(adherence, "load_examiner", lambda work: ex.new_examiner().eval())
    monkeypatch.setattr(adherence, "rendered", lambda asked: [blank(32) for _ in asked])
    report = tmp_path / "report.json"
    options = ["--model", str(tiny_path), "--cfg", "1", "--steps", "1,2", "--pictures", "2"]
    result = CliRunner().invoke(adherence.main, [*options, "--json", str(report)])
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if line.startswith("|")]
    assert lines[:2] == adherence.header().splitlines()
    knobs = [tuple(cell.strip() for cell in line.split("|")[1:5]) for line in lines[2:]]
    assert knobs == [
        ("renderer", "", "", "4"),
        ("renderer, blurred by 1 px", "", "", "4"),
        ("renderer, through the VAE", "", "", "4"),
        ("seen pairs", "20", "7.5", "2"),
        ("no place said", "20", "7.5", "2"),
        ("held-out pairs", "20", "7.5", "2"),
        ("held-out pairs", "20", "1", "2"),
        ("held-out pairs", "1", "7.5", "2"),
        ("held-out pairs", "2", "7.5", "2"),
    ]
    assert re.search(r"PSNR of the VAE over 4 rendered pictures: -?\d+\.\d\d dB", result.stdout)
    written = json.loads(report.read_text())
    assert [(row["steps"], row["cfg"]) for row in written["rows"]][3:6] == [(20, 7.5)] * 3
    assert written["settings"]["model"] == str(tiny_path)
    assert written["psnr"] > 0


def test_the_command_with_an_adapter_and_other_defaults(
    tiny_path: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(adherence, "RENDERED", 2)
    monkeypatch.setattr(adherence, "load_examiner", lambda work: ex.new_examiner().eval())
    monkeypatch.setattr(adherence, "rendered", lambda asked: [blank(32) for _ in asked])
    change = LowRank(sdcore.load(tiny_path, device="cpu").unet, rank=1)
    change.write(tmp_path / "lora.safetensors")
    options = ["--model", str(tiny_path), "--pictures", "1", "--cfg", "", "--steps", "2"]
    options += ["--default-steps", "1", "--default-cfg", "1", "--scheduler", "euler"]
    options += ["--lora", str(tmp_path / "lora.safetensors:0.5"), "--spacing", "trailing"]
    result = CliRunner().invoke(adherence.main, options)
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if line.startswith("|")]
    assert [tuple(cell.strip() for cell in line.split("|")[2:4]) for line in lines[5:]] == [
        ("1", "1"),
        ("1", "1"),
        ("1", "1"),
        ("2", "1"),
    ]


def blank(size: int):
    return ex.Image.new("RGB", (size, size), "grey")


@pytest.mark.parametrize(
    "options", [["--model", "nowhere-at-all"], ["--cfg", "1,x"], ["--pictures", "0"]]
)
def test_bad_options_end_with_one_clear_line(options: list[str]):
    result = CliRunner().invoke(adherence.main, options)
    assert result.exit_code in (1, 2)
    assert "Traceback" not in result.output
    assert "Error: " in result.stderr


def test_the_contact_sheet(tiny_path: Path, tmp_path: Path, monkeypatch):
    asked = contact_sheet.shown()
    assert len(asked) == 48
    for d, text in zip(asked, contact_sheet.captions(asked), strict=True):
        new = (d.things[0].object, d.things[0].colour) in world.HELD_OUT
        assert text == canonical_caption(d) + ("\n(new pair)" if new else "")
    monkeypatch.setattr(contact_sheet, "ROWS", 2)
    monkeypatch.setattr(contact_sheet, "COLUMNS", 2)
    out = tmp_path / "sheet.png"
    result = CliRunner().invoke(contact_sheet.main, ["--model", str(tiny_path), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert ex.Image.open(out).width > 2 * 32
