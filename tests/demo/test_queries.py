"""The queries of the demo, and the scenes that answer them."""

from pathlib import Path

import pytest
from small_demo import MEANT, has

from videoprism_mlx.demo.queries import PLACED, QUERIES, Query, choose_scenes
from videoprism_mlx.demo.results import Clip
from videoprism_mlx.demo.scenes import Scene, Thing, draw_scenes, is_held_out


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_each_query_has_a_right_clip_among_things_never_trained_on(seed: int) -> None:
    scenes = choose_scenes(40, seed)
    assert len(scenes) == 40 and len({(frozenset(s.things), s.background) for s in scenes}) == 40
    assert all(is_held_out(thing) for scene in scenes for thing in scene.things)
    assert set(MEANT) == {query.text for query in QUERIES}
    for query in QUERIES:
        right = [query.is_answered_by(scene) for scene in scenes]
        assert right == [MEANT[query.text](scene) for scene in scenes]
        assert 1 <= sum(right) <= 20


def test_what_the_page_says_about_training_is_true() -> None:
    trained = draw_scenes(2000, seed=0)
    assert not any(has(scene, "heart", "yellow") for scene in trained)
    assert any(has(scene, "heart") for scene in trained)
    assert any(has(scene, "yellow") for scene in trained)


def test_one_thing_is_not_counted_as_two() -> None:
    star = Thing("star", "yellow", "large", "plain", "left")
    two = Query("two stars", "", ({"shape": "star"}, {"colour": "yellow"}))
    assert two.is_answered_by(Scene((star,), "sand")) is False
    assert two.is_answered_by(Scene((star, star._replace(colour="purple")), "sand")) is True
    assert Query("anything").is_answered_by(Scene((star,), "sand")) is None


def test_the_seed_decides_the_scenes() -> None:
    assert choose_scenes(30, 3) == choose_scenes(30, 3) != choose_scenes(30, 4)
    assert set(PLACED) <= set(choose_scenes(len(PLACED), 3))


def test_scenes_in_words(tmp_path: Path) -> None:
    things = (
        Thing("heart", "blue", "large", "striped", "growing"),
        Thing("square", "red", "small", "plain", "left"),
    )
    clip = Clip(tmp_path, Scene(things, "night sky"))
    assert clip.shows == (
        "a large striped blue heart grows and a small red square moves left in the night sky"
    )
    assert clip.motion == "grows and moves left"
