import numpy as np
import pytest

from scripts.train import world
from scripts.train.figures import FIGURES
from scripts.train.paint import Canvas
from scripts.train.world import Description, Thing


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def samples(count: int, held_out: bool = False) -> list[Description]:
    generator = rng(1)
    return [world.sample_description(generator, held_out) for _ in range(count)]


def pairs(description: Description) -> list[tuple[str, str]]:
    return [(thing.object, thing.colour) for thing in description.things]


def test_same_generator_state_same_picture_and_caption():
    for description in samples(12):
        first, second = (np.asarray(world.draw(description, rng(7))) for _ in range(2))
        assert (first == second).all()
        assert world.caption(description, rng(7)) == world.caption(description, rng(7))


def test_pictures_of_one_description_differ():
    description = samples(1)[0]
    assert (np.asarray(world.draw(description, rng(1))) != world.draw(description, rng(2))).any()


def test_the_global_generator_is_left_alone():
    before = str(np.random.get_state())  # its position is in it
    for description in samples(4):
        world.draw(description, rng())
        world.caption(description, rng())
    assert str(np.random.get_state()) == before


@pytest.mark.parametrize("size", [64, 128, 200])
def test_size(size: int):
    assert world.draw(samples(1)[0], rng(), size).size == (size, size)


def test_held_out_pairs_are_never_trained_on():
    for description in samples(3000):
        assert not set(pairs(description)) & set(world.HELD_OUT)
    for description in samples(300, held_out=True):
        assert pairs(description)[0] in world.HELD_OUT
        assert pairs(description)[-1] not in world.HELD_OUT or len(description.things) == 1


def test_held_out_pairs_spread_over_objects_and_colours():
    objects = [thing for thing, _ in world.HELD_OUT]
    colours = [colour for _, colour in world.HELD_OUT]
    assert len(world.HELD_OUT) == len(set(objects)) == 10
    assert max(colours.count(colour) for colour in world.COLOURS) <= 2
    assert set(objects) < set(world.OBJECTS)
    assert set(colours) <= set(world.COLOURS)


def test_every_word_is_sampled():
    seen = samples(2000)
    things = [thing for description in seen for thing in description.things]
    assert {d.scene for d in seen} == set(world.SCENES)
    assert {d.place for d in seen} == {*world.PLACES, None}
    assert {d.relation for d in seen} == {*world.RELATIONS, None}
    assert {t.object for t in things} == set(world.OBJECTS)
    assert {t.colour for t in things} == set(world.COLOURS)
    assert {t.size for t in things} == set(world.SIZES)
    assert 0.3 < np.mean([d.relation is not None for d in seen]) < 0.4


@pytest.mark.parametrize("name", world.OBJECTS)
@pytest.mark.parametrize("side", world.SIDES.values())
def test_a_figure_fills_its_box(name: str, side: float):
    canvas, figure = Canvas(128), FIGURES[name]
    figure.draw(canvas, 0.5, 0.15, side, (200, 200, 200))
    rows, columns = np.nonzero(canvas.pixels.max(axis=2) > 60)
    found = np.array([columns.min(), columns.max() + 1, rows.min(), rows.max() + 1]) / 128
    half = side * figure.width / 2
    box = [0.5 - half, 0.5 + half, 0.15, 0.15 + side * figure.height]
    assert found == pytest.approx(box, abs=0.012 + 0.03 * side)


def test_boxes_say_what_the_words_say():
    generator = rng(3)
    for description in samples(2000):
        boxes = world.layout(description, generator)
        for thing, box in zip(description.things, boxes, strict=True):
            side = max(box.width, box.height)
            figure = FIGURES[thing.object]
            side /= max(figure.width, figure.height)
            assert side == pytest.approx(world.SIDES[thing.size], rel=0.06)
            assert box.x - box.width / 2 >= 0
            assert box.x + box.width / 2 <= 1
            assert box.top >= 0
            assert box.bottom <= 0.97
        if description.place:
            (thing,), (box,) = description.things, boxes
            shift = 0.18 if thing.size == "big" else 0.24
            expected = {"left": 0.5 - shift, "middle": 0.5, "right": 0.5 + shift}
            assert box.x == pytest.approx(expected[description.place], abs=0.04)
        if description.relation == "left of":
            left, right = boxes
            assert right.x - left.x > 0.38
            assert left.x + left.width / 2 < right.x - right.width / 2
        if description.relation == "above":
            upper, lower = boxes
            assert upper.bottom < lower.top
            assert abs(upper.x - lower.x) < 0.03


def test_captions_contain_the_words():
    generator, complete, plain = rng(4), [], []
    for description in samples(2000):
        text = world.caption(description, generator)
        assert text == text.strip()
        assert "{" not in text
        assert "  " not in text
        for thing in description.things:
            assert thing.object in text
            if thing.size == "small":
                assert any(word in text for word in ("small", "little", "tiny"))
            if thing.size == "big":
                assert any(word in text for word in ("big", "large"))
        words = text.replace("centre", "middle").replace(",", "").split()
        parts = [description.scene, description.place, *(t.colour for t in description.things)]
        complete.append(all(part in words for part in parts if part))
        if description.place:
            plain.append(set(words) <= {"a", "an", "red", "house", *world.COLOURS, *world.OBJECTS})
    assert 0.82 < np.mean(complete) < 0.93
    assert 0.01 < np.mean(plain) < 0.06


def test_canonical_captions():
    house, tree = Thing("house", "red", "big"), Thing("tree", "blue", "medium")
    one = Description("snow", (house,), place="left")
    two = Description("sunset", (tree, Thing("cat", "orange", "small")), relation="left of")
    assert world.canonical_caption(one) == "a big red house on the left in the snow"
    assert world.canonical_caption(two) == "a blue tree left of a small orange cat at sunset"


def test_a_description_must_be_whole():
    with pytest.raises(ValueError, match="one thing needs a place"):
        Description("snow", (Thing("house", "red", "big"),))


def test_white_is_seen_in_the_snow_and_blue_at_night():
    for scene, colour in (("snow", "white"), ("night", "blue"), ("meadow", "green")):
        for name in world.OBJECTS:
            thing = Description(scene, (Thing(name, colour, "medium"),), place="middle")
            box = world.layout(thing, rng(5))[0]
            picture = np.asarray(world.draw(thing, rng(5)), dtype=float)
            empty = Canvas(128)
            generator = rng(5)
            world.layout(thing, generator)
            world.paint_scene(empty, scene, generator)
            changed = np.abs(picture - np.asarray(empty.image())).max(axis=2) > 25
            area = box.width * box.height * 128**2
            assert changed.sum() > 0.25 * area, (scene, name)
