"""The demo: what is drawn and found, the page that shows it, and the folder that it is in."""

import base64
import contextlib
import html
import io
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

import videoprism_mlx as vp
from videoprism_mlx.cli import main
from videoprism_mlx.demo import page as demopage
from videoprism_mlx.demo import search as demo
from videoprism_mlx.demo import world
from videoprism_mlx.demo.search import (
    PLACED,
    QUERIES,
    Clip,
    Query,
    Ranking,
    Turn,
    choose_scenes,
    run_demo,
)
from videoprism_mlx.demo.world import Scene, Thing

COUNT = 14  # Those that are placed, and one at random.

# What each query means, said in another way than the demo does.
MEANT: dict[str, Callable[[Scene], bool]] = {
    "a yellow heart": lambda scene: has(scene, "heart", "yellow"),
    "something spinning": lambda scene: has(scene, "spinning"),
    "a big blue star moves left at night": lambda scene: (
        has(scene, "star", "blue", "large", "left") and scene.background == "night sky"
    ),
    "a pink square moves left": lambda scene: has(scene, "square", "pink", "left"),
    "a pink square moves right": lambda scene: has(scene, "square", "pink", "right"),
    "something flashing on and off": lambda scene: has(scene, "blinking"),
    "something stripy on the beach": lambda scene: (
        has(scene, "striped") and scene.background == "sand"
    ),
    "a red square next to an orange ball": lambda scene: (
        has(scene, "square", "red") and has(scene, "circle", "orange")
    ),
}


def has(scene: Scene, *attributes: str) -> bool:
    """Whether one thing of a scene has all these attributes."""
    return any(set(attributes) <= set(thing) for thing in scene.things)


@contextlib.contextmanager
def without_network() -> Iterator[None]:
    def refuse(*_: Any) -> None:
        raise AssertionError("the demo used the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        yield


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> demo.Demo:
    """A small demo, made without a network."""
    with without_network():
        return run_demo(tmp_path_factory.mktemp("demo") / "new" / "folder", count=COUNT)


class Page(HTMLParser):
    """A page whose elements are all closed, in order."""

    VOID = ("meta", "img", "source", "br", "link")

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[Any]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.text.setdefault(tag, [])
        if tag not in self.VOID:
            self.open.append(tag)
            self.text[tag].append("")

    def handle_startendtag(self, tag: str, attrs: list[Any]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.text[tag][-1] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(shown: demo.Demo) -> Page:
    return Page(shown.page.read_text(encoding="utf-8"))


def opened(uri: str) -> Image.Image:
    start = "data:image/webp;base64,"
    assert uri.startswith(start)
    return Image.open(io.BytesIO(base64.b64decode(uri[len(start) :], validate=True)))


# Scenes.


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_each_query_has_a_right_clip_among_things_never_trained_on(seed: int) -> None:
    scenes = choose_scenes(40, seed)
    assert len(scenes) == 40 and len({(frozenset(s.things), s.background) for s in scenes}) == 40
    assert all(world.is_held_out(thing) for scene in scenes for thing in scene.things)
    assert set(MEANT) == {query.text for query in QUERIES}
    for query in QUERIES:
        right = [query.is_answered_by(scene) for scene in scenes]
        assert right == [MEANT[query.text](scene) for scene in scenes]
        assert 1 <= sum(right) <= 20


def test_what_the_page_says_of_training_is_so() -> None:
    trained = world.draw_scenes(2000, seed=0)
    assert not any(has(scene, "heart", "yellow") for scene in trained)
    assert any(has(scene, "heart") for scene in trained)
    assert any(has(scene, "yellow") for scene in trained)


def test_a_thing_answers_once() -> None:
    star = Thing("star", "yellow", "large", "plain", "left")
    two = Query("two stars", "", ({"shape": "star"}, {"colour": "yellow"}))
    assert two.is_answered_by(Scene((star,), "sand")) is False
    assert two.is_answered_by(Scene((star, star._replace(colour="purple")), "sand")) is True
    assert Query("anything").is_answered_by(Scene((star,), "sand")) is None


def test_scenes_go_by_the_seed() -> None:
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


# Results.


def test_cosines_are_those_of_the_model_itself(shown: demo.Demo) -> None:
    model, processor = vp.load(vp.models.DEMO_MODEL, dtype="float32")
    paths = [clip.path for clip in shown.clips]
    texts = [query.text for query in QUERIES]
    videos, words, _ = model(**processor(videos=paths, texts=texts))
    expected = np.array(words) @ np.array(videos).T
    for ranking, row in zip(shown.rankings, expected, strict=True):
        found = {hit.clip.path: hit.cosine for hit in ranking.hits}
        np.testing.assert_allclose([found[path] for path in paths], row, atol=1e-5)
        cosines = [hit.cosine for hit in ranking.hits]
        assert cosines == sorted(cosines, reverse=True)
        for hit in ranking.hits:
            assert hit.is_right == MEANT[ranking.query.text](hit.clip.scene)

    for turn in shown.turns:
        both, words, _ = model(
            **processor(
                videos=[turn.clip.path, turn.backwards.path], texts=[turn.text, turn.opposite]
            )
        )
        np.testing.assert_allclose(turn.cosines, np.array(both) @ np.array(words).T, atol=1e-5)


def test_what_is_turned_has_the_frames_in_the_other_order(shown: demo.Demo) -> None:
    said = [(turn.text, turn.opposite) for turn in shown.turns]
    assert said == [
        ("a pink square moves left", "a pink square moves right"),
        ("a blue star moves up", "a blue star moves down"),
        ("a yellow heart grows", "a yellow heart shrinks"),
    ]
    for turn in shown.turns:
        forwards, backwards = (clip.frames().astype(int) for clip in (turn.clip, turn.backwards))
        assert np.abs(forwards[::-1] - backwards).mean() < 2 < np.abs(forwards - backwards).mean()


@pytest.mark.parametrize(
    ("cosines", "turns"),
    [
        ([[0.5, 0.2], [0.1, 0.4]], True),
        ([[0.5, 0.2], [0.4, 0.1]], False),
        ([[0.2, 0.5], [0.1, 0.4]], False),
        ([[0.3, 0.3], [0.1, 0.4]], False),
    ],
)
def test_an_answer_turns_if_both_are_right(cosines: list[list[float]], turns: bool) -> None:
    clip = Clip(Path("a.mp4"), PLACED[0])
    assert Turn(clip, clip, "left", "right", np.array(cosines)).turns is turns


def test_how_often_the_first_is_right(shown: demo.Demo) -> None:
    right = [[hit.is_right for hit in ranking.hits] for ranking in shown.rankings]
    assert shown.first_right == sum(row[0] for row in right)
    assert shown.by_chance == pytest.approx(sum(map(sum, right)) / COUNT)
    ranking = Ranking(QUERIES[0], shown.rankings[0].hits)
    assert [hit.is_right for hit in ranking.hits] == [
        place in ranking.right for place in range(1, COUNT + 1)
    ]


# The page.


def test_the_page_needs_nothing_else(page: Page) -> None:
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "video", "object", "a", "form"}
    for _, attributes in page.tags:
        for name in ("src", "srcset"):
            assert attributes.get(name, "data:").startswith("data:")
        assert not any(name.startswith("on") or name == "href" for name in attributes)
    assert "url(" not in "".join(page.text["style"]) + str(page.tags).replace("data:", "")
    assert page.all("html") == [{"lang": "en"}] and len(page.all("h1")) == 1
    assert any("default-src 'none'" in each.get("content", "") for each in page.all("meta"))


def test_the_page_has_each_query_with_its_clips_and_marks(page: Page, shown: demo.Demo) -> None:
    assert page.text["h3"] == [query.text for query in QUERIES]
    marks = {True: "✓", False: "✗"}
    expected = [
        f"{place}.{marks[MEANT[ranking.query.text](hit.clip.scene)]}{hit.cosine:.3f}{hit.clip.shows}"
        for ranking in shown.rankings
        for place, hit in enumerate(ranking.hits[:4], 1)
    ]
    captions = page.text["figcaption"]
    assert captions[: len(expected)] == expected
    sides = captions[len(expected) :]
    assert len(sides) == 2 * len(shown.turns)
    for said, turn in zip(sides[::2], shown.turns, strict=True):
        cosine, other = turn.cosines[0]
        assert said == f"forwards{turn.text} {cosine:.3f}{turn.opposite} {other:.3f}"
    whole = " ".join("".join(page.text["body"]).split())
    assert f"{shown.first_right} of 8" in whole
    assert f"so for {sum(turn.turns for turn in shown.turns)} of 3 clips" in whole


def test_dots_are_all_clips_the_right_ones_solid(page: Page, shown: demo.Demo) -> None:
    circles = page.all("circle")
    assert len(circles) == len(QUERIES) * COUNT
    cosines = [hit.cosine for ranking in shown.rankings for hit in ranking.hits]
    low, high = min(cosines), max(cosines)
    for number, (ranking, svg) in enumerate(zip(shown.rankings, page.all("svg"), strict=True)):
        row = circles[number * COUNT :][:COUNT]
        solid = [each for each in row if each.get("class") == "true"]
        places = sorted(float(each["cx"].rstrip("%")) for each in solid)
        right = sorted(hit.cosine for hit in ranking.hits if hit.is_right)
        at = [1 + 98 * (cosine - low) / (high - low) for cosine in right]
        assert places == pytest.approx(at, abs=0.01)
        assert svg["aria-label"].endswith(", ".join(map(str, ranking.right)))


def test_images_play_what_the_files_hold(page: Page, shown: demo.Demo) -> None:
    images, stills = page.all("img"), page.all("source")
    clips = [hit.clip for ranking in shown.rankings for hit in ranking.hits[:4]]
    clips += [clip for turn in shown.turns for clip in (turn.clip, turn.backwards)]
    clips += shown.clips
    assert len(images) == len(stills) == len(clips) == 8 * 4 + 2 * 3 + COUNT
    for image, still, clip in list(zip(images, stills, clips, strict=True))[::5]:
        assert image["alt"] == clip.shows
        side = int(image["width"])
        played, frames = opened(image["src"]), clip.frames()
        assert played.size == (side, side) == (int(image["height"]),) * 2
        drawn = [np.array(frame.convert("RGB"), int) for frame in ImageSequence.Iterator(played)]
        if len({frame.tobytes() for frame in frames}) == len(frames):  # Like frames become one.
            assert len(drawn) == world.FRAMES == len(frames)
        for which in (0, -1):
            wanted = Image.fromarray(frames[which]).resize((side, side), Image.Resampling.LANCZOS)
            assert np.abs(drawn[which] - np.array(wanted, int)).mean() < 6
        assert still["media"] == "(prefers-reduced-motion: reduce)"
        at_rest = opened(still["srcset"])
        assert at_rest.n_frames == 1 and at_rest.size == (side, side)
        corner = np.array(at_rest.convert("RGB").crop((0, 0, side // 2 - 1, side // 2 - 1)), int)
        small = Image.fromarray(frames[0]).resize((side // 2 - 1,) * 2, Image.Resampling.LANCZOS)
        assert np.abs(corner - np.array(small, int)).mean() < 12


def test_clips_play_for_ever_and_rest_at_the_end() -> None:
    frames = [Image.new("RGB", (32, 32), (shade, 0, 0)) for shade in range(0, 256, 16)]
    played = opened(demopage.data_uri(frames))
    durations = []
    for frame in ImageSequence.Iterator(played):
        frame.load()
        durations.append(frame.info["duration"])
    assert durations == [125] * 15 + [700] and played.info["loop"] == 0


def test_many_clips_are_not_all_in_the_gallery(
    shown: demo.Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demopage, "GALLERY", 5)
    few = Page(demopage.gallery(shown))
    assert len(few.all("img")) == 5 and "the first 5" in "".join(few.text["p"])


# Own queries, the command line.


def test_own_queries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["<script>alert('x')</script> & \"stars\"", "ein roter Kreis"]
    arguments = [f"--query={text}" for text in asked]
    output = tmp_path / "demo"
    command = ["demo", "-o", str(output), f"--clips={len(PLACED)}", "--seed=3", "--json"]
    assert main([*command, *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    text = (output / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.text["h3"] == asked and not page.all("script") and html.escape(asked[0]) in text
    assert "✓ marks" not in text and not re.search(r"class=.true", text)
    assert [query["text"] for query in result["queries"]] == asked
    for query in result["queries"]:
        assert len(query["results"]) == len(PLACED)
        assert {each["right"] for each in query["results"]} == {None}
    shows = {each["video"]: each["shows"] for each in result["clips"]}
    expected = [shows[each["video"]] for q in result["queries"] for each in q["results"][:4]]
    captions = page.text["figcaption"][:8]
    assert all(said.endswith(each) for said, each in zip(captions, expected, strict=True))
    assert result["page"] == str(output / "index.html") and set(result["seconds"]) == {
        "draw",
        "encode",
        "search",
    }
    assert [each["turns"] for each in result["backwards"]] == [
        row[0][0] > row[0][1] and row[1][1] > row[1][0]
        for row in (each["cosines"] for each in result["backwards"])
    ]


def test_the_table(
    shown: demo.Demo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "run_demo", lambda *_: shown)
    assert main(["demo"]) == 0
    printed = capsys.readouterr().out
    for ranking in shown.rankings:
        _, _, after = printed.partition(f"\n{ranking.query.text}\n")
        lines = after.splitlines()[:4]
        for place, (line, hit) in enumerate(zip(lines, ranking.hits, strict=False), 1):
            right = "yes" if hit.is_right else "no"
            words = [str(place), f"{hit.cosine:.3f}", right, hit.clip.path.name]
            assert line.split() == [*words, *hit.clip.shows.split()]
    assert f"for {shown.first_right} of 8 queries" in printed
    assert printed.splitlines()[-1].split() == ["page", str(shown.page)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clips", "3"], f"the number of clips is 3; expected {len(PLACED)} or more"),
        (["--seed", "-1"], "the seed is -1; expected 0 or more"),
        (["--query", "a star", "--query", " "], "one of the queries is empty"),
    ],
)
def test_mistakes(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "-o", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


# The folder.


def test_a_rerun_replaces_what_was_there(tmp_path: Path) -> None:
    output = tmp_path / "demo"
    first = run_demo(output, ["a star"], count=COUNT, seed=1)
    before = first.page.read_text(encoding="utf-8")
    files = {path.name: path.read_bytes() for path in (output / "clips").iterdir()}
    (output / "notes.txt").write_text("mine")
    (output / "clips" / ".DS_Store").touch()
    again = run_demo(output, ["a heart"], count=len(PLACED), seed=1)
    assert len(files) == COUNT
    assert len(list((output / "clips").iterdir())) == len(list(again.clips)) == len(PLACED)
    assert "a heart" in again.page.read_text(encoding="utf-8") != before
    assert (output / "notes.txt").read_text() == "mine"
    assert {path.name for path in output.iterdir() if not path.name.startswith(".")} == {
        "index.html",
        "demo.png",
        "clips",
        "backwards",
        "notes.txt",
        "videoprism-demo.json",
    }
    same = run_demo(output, ["a star"], count=COUNT, seed=1)
    assert {path.name: path.read_bytes() for path in (output / "clips").iterdir()} == files
    assert [hit.cosine for hit in same.rankings[0].hits] == [
        hit.cosine for hit in first.rankings[0].hits
    ]


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("my page")
    with pytest.raises(ValueError, match=r"holds something else than a demo, such as index\.html"):
        run_demo(site)
    assert [path.name for path in site.iterdir()] == ["index.html"]
    assert (site / "index.html").read_text() == "my page"
    with pytest.raises(ValueError, match="is a file; expected a new folder"):
        run_demo(site / "index.html")


def test_a_clip_of_ones_own_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / demo.RECORD).write_text("{}")
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "holiday.mp4").write_text("mine")
    with pytest.raises(ValueError, match=r"holiday\.mp4 is not of the demo"):
        run_demo(tmp_path)
    assert (tmp_path / "clips" / "holiday.mp4").read_text() == "mine"


def test_a_killed_run_leaves_no_page_and_the_next_one_works(tmp_path: Path) -> None:
    output = tmp_path / "demo"
    output.mkdir()
    (output / demo.RECORD).write_text("{}")
    (output / "index.html").write_text("of an earlier run, whose clips are gone by then")
    code = (
        "import os, signal, sys; from videoprism_mlx.demo import page, search\n"
        "page.page = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"search.run_demo(sys.argv[1], ['a star'], count={len(PLACED)})"
    )
    killed = subprocess.run([sys.executable, "-c", code, output], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (output / "index.html").exists() and (output / "clips").exists()
    again = run_demo(output, ["a star"], count=len(PLACED))
    assert again.page.exists()
    assert not [path for path in output.iterdir() if "partial" in path.name]


# The picture.


def test_the_picture_shows_what_was_found(shown: demo.Demo) -> None:
    picture = np.array(Image.open(shown.picture))
    assert np.array_equal(picture, demopage.picture(shown))
    assert picture.shape[1] == 1600 and 1200 < len(picture) < 1700
