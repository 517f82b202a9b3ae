"""The last stage of training the small model: what counts as right, as wrong, and as unknown."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import videoprism_mlx as vp
from videoprism_mlx.demo import attributes
from videoprism_mlx.demo.attributes import (
    MOTIONS_OF_SET,
    AttributeLearner,
    Choices,
    backwards,
    batch_loss,
    choices_of,
    contrastive_loss,
    frozen,
    is_unknown,
    naming_loss,
    possible_words,
    same_loss,
)
from videoprism_mlx.demo.captions import WORDS, describe, describe_looks, name_one
from videoprism_mlx.demo.scenes import (
    ATTRIBUTES,
    COLOURS,
    SHAPES,
    Scene,
    Thing,
    draw_scenes,
    is_held_out,
    is_new_look,
    is_visible,
    motion_sets,
    shape_sets,
)
from videoprism_mlx.demo.tints import TINTS, hue, recoloured, recolouring, strange_recolouring
from videoprism_mlx.models import DEMO_MODEL

HEART = Scene((Thing("heart", "red", "large", "plain", "left"),), "sand")


def test_shape_sets_differ_in_shape_alone_and_hold_nothing_that_is_held_out() -> None:
    sets = shape_sets(200, 4)
    assert sets == shape_sets(200, 4) != shape_sets(200, 5)
    for scenes in sets:
        things = [scene.things[0] for scene in scenes]
        assert len({(thing._replace(shape=""), scenes[0].background) for thing in things}) == 1
        lacking = [shape for shape in SHAPES if is_new_look(things[0]._replace(shape=shape))]
        assert [thing.shape for thing in things] == [s for s in SHAPES if s not in lacking]
        assert all(map(is_visible, things)) and not any(map(is_held_out, things))
    assert {scenes[0].things[0].colour for scenes in sets} == set(COLOURS)


def test_a_caption_of_one_attribute() -> None:
    assert name_one("shape", "circle") == "a circle"
    assert name_one("texture", "plain") == "a plain thing"
    assert name_one("background", "night sky") == "a thing in the night sky"
    random = np.random.default_rng(0)
    said = {name_one("motion", "left", random) for _ in range(50)}
    assert len(said) == 4 and "a thing moves left" in said and "a thing slides left" in said


def test_a_caption_of_looks() -> None:
    random = np.random.default_rng(0)
    said = [describe_looks(scene, random) for scene in draw_scenes(200, 1, two=1.0)]
    for caption, scene in zip(said, draw_scenes(200, 1, two=1.0), strict=True):
        assert all(thing.colour in caption for thing in scene.things)
        ways = [way for thing in scene.things for way in WORDS[thing.motion]]
        assert not any(way in caption for way in (*ways, *WORDS[scene.background]))
        assert "a orange" not in caption
    named = [
        any(way in caption for way in WORDS.get(scene.things[0].shape, (scene.things[0].shape,)))
        for caption, scene in zip(said, draw_scenes(200, 1, two=1.0), strict=True)
    ]
    assert 0.75 < np.mean(named) < 1


def test_captions_without_motions_still_say_something() -> None:
    random = np.random.default_rng(0)
    for scene in draw_scenes(200, 1, two=0.0):
        said = describe(scene, random, 1.0, motions=False)
        assert scene.things[0].colour in said
        assert not any(way in said for way in WORDS[scene.things[0].motion])


def test_possible_words_are_those_that_training_may_show() -> None:
    trained = {(thing.shape, thing.colour) for s in draw_scenes(3000, 0) for thing in s.things}
    for scene in draw_scenes(50, 1, two=0.0):
        possible = dict(zip(SHAPES, possible_words(scene, "shape"), strict=True))
        assert possible[scene.shown("shape")] and sum(possible.values()) == len(SHAPES) - 1
        for shape in SHAPES:
            assert possible[shape] == ((shape, scene.things[0].colour) in trained)
    assert possible_words(HEART, "background") == [True] * len(ATTRIBUTES["background"])


def test_a_caption_is_unknown_if_what_it_says_is_held_out_in_the_colour_of_the_clip() -> None:
    yellow = Scene((Thing("star", "yellow", "large", "plain", "left"),), "sand")
    assert is_held_out(HEART.things[0]._replace(colour="yellow"))
    assert is_unknown(yellow, HEART) and not is_unknown(HEART, yellow)
    two = Scene((yellow.things[0]._replace(colour="green"), yellow.things[0]), "sand")
    assert is_unknown(two, HEART) and not is_unknown(HEART, HEART)


def test_a_frozen_clip_is_still_and_not_held_out() -> None:
    still = HEART._replace(things=(HEART.things[0]._replace(motion="still"),))
    assert frozen(HEART) == still
    assert frozen(Scene((HEART.things[0]._replace(motion="blinking"),), "sand")) is None
    for scene in draw_scenes(300, 6):
        kept = frozen(scene)
        assert kept is None or not any(map(is_held_out, kept.things))
    yellow = HEART.things[0]._replace(shape="star", colour="yellow", motion="up")
    assert not is_held_out(yellow) and frozen(Scene((yellow,), "sand")) is None


def test_a_clip_backwards() -> None:
    right = HEART._replace(things=(HEART.things[0]._replace(motion="right"),))
    assert not is_held_out(right.things[0]) and backwards(HEART) == right
    assert backwards(HEART._replace(things=(HEART.things[0]._replace(motion="still"),))) is None
    for scene in draw_scenes(300, 6):
        turned = backwards(scene)
        assert turned is None or not any(map(is_held_out, turned.things))
        assert turned is None or backwards(turned) == scene


def test_choices_of_clips() -> None:
    scenes = draw_scenes(30, 2, two=0.0)
    words = [word for name in ATTRIBUTES for word in ATTRIBUTES[name]]
    for name, choices in choices_of(scenes).items():
        named = words[choices.words]
        assert named == list(ATTRIBUTES[name])
        assert [named[i] for i in choices.right.tolist()] == [s.shown(name) for s in scenes]
        assert np.array(choices.possible)[np.arange(30), np.array(choices.right)].all()


def test_in_strange_colours_everything_is_possible() -> None:
    for choices in choices_of(draw_scenes(30, 2, two=0.0), is_strange=True).values():
        assert np.array(choices.possible).all()


@pytest.mark.parametrize("colour", COLOURS)
def test_colours_turn_to_a_hue(colour: str) -> None:
    pixel = np.array(COLOURS[colour]) / 255
    red, green, blue = pixel
    expected = np.degrees(
        np.angle(red + green * np.exp(2j * np.pi / 3) + blue / np.exp(2j * np.pi / 3))
    )
    assert hue(colour) == pytest.approx(expected % 360)
    for tint in (91, 178, 302):
        turned = recolouring(1, tint - hue(colour)) @ pixel
        angle = np.exp(2j * np.pi / 3 * np.arange(3)) @ turned
        assert np.degrees(np.angle(angle)) % 360 == pytest.approx(tint, abs=1e-3)
        assert turned.mean() == pytest.approx(pixel.mean(), abs=1e-6)
        assert abs(angle) == pytest.approx(abs(pixel @ np.exp(2j * np.pi / 3 * np.arange(3))))
    np.testing.assert_allclose(recolouring(0, 50) @ pixel, [pixel.mean()] * 3, atol=1e-6)
    np.testing.assert_allclose(recolouring(1, 0) @ pixel, pixel, atol=1e-6)


def test_strange_colours_are_none_of_the_world() -> None:
    """What is held out from training is not drawn by other means."""

    def apart(one: float, other: float) -> float:
        return abs((one - other + 180) % 360 - 180)

    assert min(apart(end, hue(c)) for ends in TINTS for end in ends for c in COLOURS) >= 24
    random, greys = np.random.default_rng(0), 0
    for scene in draw_scenes(300, 3, two=0.0):
        colour = scene.shown("colour")
        turned = strange_recolouring(scene, random) @ (np.array(COLOURS[colour]) / 255)
        chroma = np.exp(2j * np.pi / 3 * np.arange(3)) @ turned
        angle = np.degrees(np.angle(chroma)) % 360
        is_grey = abs(chroma) < 1e-6
        assert is_grey or any(low - 0.01 <= angle <= high + 0.01 for low, high in TINTS)
        greys += is_grey
    assert 60 < greys < 120


def test_each_clip_has_its_own_recolouring() -> None:
    clips = np.random.default_rng(0).random((2, 3, 4, 4, 3)).astype(np.float32)
    matrices = [recolouring(1, 0), recolouring(0, 0)]
    same, grey = np.array(recoloured(mx.array(clips), matrices))
    np.testing.assert_allclose(same, clips[0], atol=1e-6)
    np.testing.assert_allclose(grey, clips[1].mean(-1, keepdims=True).repeat(3, -1), atol=1e-6)
    turned = np.array(recoloured(mx.array(clips[:1]), [recolouring(1, 100)]))
    expected = np.clip(clips[0] @ recolouring(1, 100).T, 0, 1)
    np.testing.assert_allclose(turned[0], expected, atol=1e-6)


@pytest.fixture
def choices() -> Choices:
    """Two clips that show the words 0 and 2 of four. The last word is impossible in both."""
    possible = mx.array([[True, True, True, False]] * 2)
    return Choices(slice(0, 4), mx.array([0, 2]), possible)


def test_an_impossible_word_does_not_count_against_a_clip(choices: Choices) -> None:
    logits = mx.array([[1.0, 2.0, 0.5, 3.0], [0.0, -1.0, 2.0, 7.0]])
    expected = [
        np.log(np.exp([1.0, 2.0, 0.5]).sum()) - 1.0,
        np.log(np.exp([0.0, -1.0, 2.0]).sum()) - 2.0,
    ]
    np.testing.assert_allclose(naming_loss(logits, choices), expected, rtol=1e-5)
    gradient = mx.grad(lambda values: naming_loss(values, choices).sum())(logits)
    np.testing.assert_array_equal(gradient[:, 3], [0, 0])
    assert np.abs(np.array(gradient[:, :3])).min() > 0.01


def test_the_same_answer_in_all_colours() -> None:
    """Cross-entropy with the shares of the strange clip, which is not trained itself."""
    logits, strange = mx.array([[1.0, 2.0, 0.5]]), mx.array([[0.0, 1.0, 3.0]])
    shares = np.exp([0.0, 1.0, 3.0]) / np.exp([0.0, 1.0, 3.0]).sum()
    expected = np.log(np.exp([1.0, 2.0, 0.5]).sum()) - shares @ [1.0, 2.0, 0.5]
    assert same_loss(logits, strange).item() == pytest.approx(expected, rel=1e-5)
    to_logits, to_strange = mx.grad(same_loss, argnums=(0, 1))(logits, strange)
    plain = np.exp([1.0, 2.0, 0.5]) / np.exp([1.0, 2.0, 0.5]).sum()
    np.testing.assert_allclose(to_logits[0], plain - shares, atol=1e-6)
    np.testing.assert_array_equal(to_strange, np.zeros((1, 3)))


class OfOneColour(AttributeLearner):
    """A learner whose clips are of the one colour of their thing. It keeps the captions."""

    def __init__(self) -> None:
        sets, motions = shape_sets(3, 0), motion_sets(3, 0, held_out=False)
        scenes = {
            "sets": [scene for each in sets for scene in each],
            "motions": [scene for each in motions for scene in each],
            "others": draw_scenes(3, 0, two=1.0),
            "val": [],
        }
        arrays: Any = scenes
        model, self.loaded = vp.load(DEMO_MODEL)
        processor: Any = SimpleNamespace(tokenize=self.tokenize)
        frames: Any = None
        super().__init__(model, processor, frames, sets, scenes, arrays)

    def tokenize(self, texts: list[str]) -> Any:
        self.texts = texts
        return self.loaded.tokenize(texts)

    def clips(self, paths: Iterable[Any]) -> mx.array:
        colours = [COLOURS[scene.shown("colour")] for scene in paths]
        shape = len(colours), 4, 64, 64, 3
        return mx.broadcast_to(mx.array(colours)[:, None, None, None] / 255, shape)


def test_a_batch_has_two_whole_sets_that_differ_in_motion() -> None:
    learner = OfOneColour()
    first, pairs, others = 3 * 5, [0, 1, 5, 6], 3 * 5 + 3 * MOTIONS_OF_SET
    chosen = [*range(first, first + 8), *range(first + 16, first + 24)]
    batch = learner.batch(pairs, chosen, [others, others + 1], np.random.default_rng(0))
    assert batch.moving == (2, 8) and len(batch.unknown) == 22 and len(batch.clips) == 22 + 20
    moving = [learner.scenes[number] for number in chosen]
    shown = np.array(batch.clips[4:20, 0, 0, 0]) * 255
    np.testing.assert_allclose(shown, [COLOURS[s.shown("colour")] for s in moving], atol=1e-3)
    strange = np.array(batch.clips[22 + 4 :, 0, 0, 0]).reshape(2, 8, 3)
    assert np.ptp(strange, axis=1).max() < 1e-6 and np.ptp(strange, axis=0).max() > 0.1
    unnamed = 0
    for part, has_colour in ((slice(4, 20), True), (slice(22, 38), False)):
        for said, scene in zip(learner.texts[part], moving, strict=True):
            unnamed += not any(way in said for way in WORDS[scene.shown("motion")])
            assert has_colour or not any(f" {colour} " in f" {said} " for colour in COLOURS)
    assert unnamed <= 4  # A random caption may leave anything out.


def test_the_loss_of_sets_that_differ_in_motion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of their captions finds its clip among those of its set, in both kinds of colours."""
    learner = OfOneColour()
    batch = learner.batch([0, 1], list(range(15, 31)), [39, 40], np.random.default_rng(1))
    noise = mx.array(np.random.default_rng(2).uniform(-0.1, 0.1, batch.clips.shape), mx.float32)
    batch = batch._replace(clips=mx.clip(batch.clips + noise, 0, 1))
    parameters = learner.start()
    monkeypatch.setattr(attributes, "MOTION", 0.0)
    without = batch_loss(learner.model, parameters, batch).item()
    monkeypatch.setattr(attributes, "MOTION", 1.0)
    found = batch_loss(learner.model, parameters, batch).item() - without

    videos, texts, _ = learner.model(batch.clips, batch.ids, batch.paddings)
    expected = 0.0
    for clips, captions in ((2, 2), (20 + 2, 20)):
        for start in (0, 8):
            seen = np.array(videos)[clips + start : clips + start + 8]
            said = np.array(texts)[captions + start : captions + start + 8]
            logits = 20 * seen @ said.T
            for each in (logits, logits.T):
                right = np.log(np.exp(each).sum(axis=1)) - np.diag(each)
                expected += right.mean() / 2 / 2  # Of both directions, and of both sets.
    assert found == pytest.approx(expected, abs=2e-5)


def test_the_contrastive_loss_of_one_set_and_of_many() -> None:
    logits = np.random.default_rng(0).standard_normal((3, 4, 4)).astype(np.float32)
    rows = np.log(np.exp(logits).sum(axis=2)) - np.diagonal(logits, axis1=1, axis2=2)
    columns = np.log(np.exp(logits).sum(axis=1)) - np.diagonal(logits, axis1=1, axis2=2)
    expected = (rows + columns) / 2
    assert contrastive_loss(mx.array(logits)).item() == pytest.approx(expected.mean(), rel=1e-5)
    one = contrastive_loss(mx.array(logits[0])).item()
    assert one == pytest.approx(expected[0].mean(), rel=1e-5)
