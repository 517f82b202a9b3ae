"""The drawn world: clips show their scenes, and captions describe them."""

import csv
from pathlib import Path

import numpy as np
import pytest

import videoprism_mlx as vp
from videoprism_mlx.demo.animation import FRAMES, SIZE, draw_clip
from videoprism_mlx.demo.captions import WORDS, describe, name_shapes
from videoprism_mlx.demo.scenes import (
    COLOURS,
    DIRECTIONS,
    MOTIONS,
    OPPOSITE,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    Thing,
    draw_scenes,
    is_held_out,
    is_new_look,
    is_visible,
    motion_sets,
)
from videoprism_mlx.demo.world import clip_random, write_world


def clip(thing: Thing, background: str = "grey", number: int = 0) -> np.ndarray:
    return draw_clip(Scene((thing,), background), clip_random(5, number))


def inside(frames: np.ndarray, colour: str) -> np.ndarray:
    """Where frames (T, S, S, 3) have nearly a colour: (T, S, S)."""
    distance = np.abs(frames.astype(int) - np.array(COLOURS[colour])).sum(axis=-1)
    return distance < 40


def centres(mask: np.ndarray) -> np.ndarray:
    """The centre of a mask (T, S, S) in each frame: (T, 2), x and y. NaN if the mask is empty."""
    places = np.arange(mask.shape[1])
    weight = mask.sum(axis=(1, 2))
    with np.errstate(invalid="ignore"):
        x, y = (mask.sum(axis=axis) @ places / weight for axis in (1, 2))
    return np.stack([x, y], axis=1)


def thing(motion: str, shape: str = "square", texture: str = "plain") -> Thing:
    return Thing(shape, "red", "small", texture, motion)


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("number", range(3))
def test_each_motion_moves_as_its_name_says(motion: str, number: int) -> None:
    frames = clip(thing(motion), number=number)
    assert frames.shape == (FRAMES, SIZE, SIZE, 3)
    mask = inside(frames, "red")
    area = mask.sum(axis=(1, 2))
    if motion == "blinking":
        assert {*(area > 0)} == {False, True}
        assert ((area[:-4] > 0) != (area[4:] > 0)).all()  # In any four frames in a row.
        return
    assert area.min() > 100
    moved = np.diff(centres(mask), axis=0)  # (T - 1, 2)
    direction = np.array(DIRECTIONS.get(motion, (0, 0)))
    if direction.any():
        assert (moved @ direction > 1).all()
        assert np.abs(moved @ direction[::-1]).max() < 1
    else:
        assert np.abs(moved).max() < 1.5
    grows = {"growing": 1, "shrinking": -1}.get(motion, 0)
    if grows:
        assert (np.diff(area) * grows > 0).all() and max(area[0], area[-1]) > 3 * min(area)
    elif not direction.any():
        assert area.max() < 1.1 * area.min()
    changed = (mask[0] != mask[4]).sum() / area[0]
    assert (changed > 0.1) == (motion not in ("still",)), changed


def test_a_motion_played_backwards_is_its_opposite() -> None:
    assert {OPPOSITE[motion] for motion in OPPOSITE} == set(OPPOSITE)
    for motion, other in OPPOSITE.items():
        assert OPPOSITE[other] == motion
        there, back = (centres(inside(clip(thing(each)), "red")) for each in (motion, other))
        if motion in DIRECTIONS:
            assert np.sign((there[-1] - there[0]).round()).tolist() == list(DIRECTIONS[motion])
            assert np.sign((back[::-1][-1] - back[::-1][0]).round()).tolist() == list(
                DIRECTIONS[motion]
            )


def test_shapes_textures_sizes_and_colours_differ() -> None:
    areas = {}
    for shape in SHAPES:
        mask = inside(clip(thing("still", shape)), "red")[0]
        y, x = np.nonzero(mask)
        areas[shape] = mask.sum() / ((np.ptp(x) + 1) * (np.ptp(y) + 1))
        assert 0.2 < areas[shape] < 1.01
    assert areas["star"] < areas["triangle"] < areas["circle"] < areas["square"]
    plain, striped, dotted = (
        inside(clip(thing("still", texture=texture)), "red")[0].sum() for texture in TEXTURES
    )
    assert 0.3 * plain < striped < 0.8 * plain and 0.3 * plain < dotted < 0.95 * plain
    small, large = (
        inside(clip(thing("still")._replace(size=size)), "red")[0].sum() for size in SIZES
    )
    assert large > 2 * small
    for colour in COLOURS:
        frames = clip(thing("still")._replace(colour=colour))
        assert inside(frames, colour)[0].sum() > 0.9 * small


def test_two_things_are_apart() -> None:
    for number, scene in enumerate(draw_scenes(40, 3, two=1.0)):
        assert len(scene.things) == 2
        assert len({each.shape for each in scene.things}) == 2
        assert len({each.colour for each in scene.things}) == 2
        if {each.motion for each in scene.things} == {"still"}:
            frames = draw_clip(scene, clip_random(3, number))
            assert all(inside(frames, each.colour)[0].sum() > 50 for each in scene.things)


def test_held_out_things_are_never_in_training() -> None:
    trained = [t for scene in draw_scenes(3000, 0) for t in scene.things]
    held = [t for scene in draw_scenes(500, 0, held_out=True) for t in scene.things]
    looks, moves = ({(t.shape, t.colour) for t in trained}, {(t.colour, t.motion) for t in trained})
    assert all((t.shape, t.colour) not in looks or (t.colour, t.motion) not in moves for t in held)
    for name in Thing._fields:  # Each word is known, their combination is not.
        known = {getattr(t, name) for t in trained}
        assert {getattr(t, name) for t in held} == known
    assert {s for s, _ in {(t.shape, t.colour) for t in held} - looks} == set(SHAPES)


def test_another_seed_gives_other_scenes() -> None:
    assert draw_scenes(20, 1) == draw_scenes(20, 1) != draw_scenes(20, 2)
    distinct = draw_scenes(300, 1, held_out=True, distinct=True)
    assert len({(frozenset(scene.things), scene.background) for scene in distinct}) == 300


def test_motion_sets_differ_in_motion_alone() -> None:
    for scenes in motion_sets(10, 4):
        assert [scene.things[0].motion for scene in scenes] == list(MOTIONS)
        assert (
            len({(scene.things[0]._replace(motion=""), scene.background) for scene in scenes}) == 1
        )
        assert all(is_new_look(scene.things[0]) for scene in scenes)
        assert all(is_visible(scene.things[0]) for scene in scenes)


def test_motion_sets_for_training_hold_nothing_that_is_held_out() -> None:
    sets = motion_sets(100, 4, held_out=False)
    assert sets == motion_sets(100, 4, held_out=False) != motion_sets(100, 5, held_out=False)
    lacking = set()
    for scenes in sets:
        things = [scene.things[0] for scene in scenes]
        assert len({(thing._replace(motion=""), scenes[0].background) for thing in things}) == 1
        assert not any(map(is_held_out, things)) and all(map(is_visible, things))
        [motion] = set(MOTIONS) - {thing.motion for thing in things}
        assert is_held_out(things[0]._replace(motion=motion)) and len(things) == 8
        lacking.add((things[0].colour, motion))
    assert len(lacking) == len(COLOURS)


def test_a_complete_caption_says_everything() -> None:
    random = np.random.default_rng(0)
    for scene in draw_scenes(200, 7):
        said = describe(scene, random)
        for word in [scene.background, *(word for each in scene.things for word in each)]:
            ways = WORDS.get(word, (word,))
            assert any(way in said for way in ways), (said, word)


def test_less_detail_says_less() -> None:
    random = np.random.default_rng(0)
    scenes = draw_scenes(200, 7)
    words = [
        np.mean([len(describe(scene, random, detail).split()) for scene in scenes])
        for detail in (0.0, 0.5, 1.0)
    ]
    assert words[0] < words[1] - 2 < words[2] - 4
    for scene in scenes:
        said = describe(scene, random, 0.0)
        assert said and not said.startswith(" ") and "  " not in said
        assert not {*said.split()} & {*WORDS["small"], *WORDS["large"]}


def test_captions_of_shapes_say_nothing_else() -> None:
    random = np.random.default_rng(0)
    for scene in draw_scenes(50, 8):
        said = name_shapes(scene, random, motions=False)
        moving = name_shapes(scene, random, motions=True)
        assert said.count(" and a ") == moving.count(" and a ") == len(scene.things) - 1
        for thing in scene.things:
            ways = WORDS.get(thing.shape, (thing.shape,))
            assert any(f"a {way}" in said for way in ways)
            assert any(f"a {way} " in moving for way in ways)
            assert any(way in moving for way in WORDS[thing.motion])
            assert thing.colour not in said + moving


def test_the_files_of_a_world(tmp_path: Path) -> None:
    scenes = draw_scenes(6, 2)
    listed = write_world(tmp_path / "one", scenes, 2, captions=1, partial=2)
    with open(listed, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["video"] for row in rows] == [
        f"clip{n:05d}.mp4" for n in range(6) for _ in range(3)
    ]
    again = write_world(tmp_path / "two", scenes, 2, captions=1, partial=2)
    assert listed.read_text() == again.read_text()
    for number, scene in enumerate(scenes):
        path = listed.parent / f"clip{number:05d}.mp4"
        assert path.read_bytes() == (again.parent / path.name).read_bytes()
        drawn = draw_clip(scene, clip_random(2, number))
        read = vp.read_video(path, num_frames=FRAMES, size=None)
        assert read.shape == drawn.shape
        assert np.abs(read * 255 - drawn).mean() < 6  # Less what encoding costs.
    with pytest.raises(FileExistsError):
        write_world(tmp_path / "one", scenes, 2)
