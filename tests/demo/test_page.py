"""The demo as a page, and as a picture."""

import base64
import io

import numpy as np
import pytest
from PIL import Image, ImageSequence
from small_demo import COUNT, MEANT, Page, small_demo

from videoprism_mlx.demo import page as demopage
from videoprism_mlx.demo.animation import FRAMES
from videoprism_mlx.demo.picture import draw_picture
from videoprism_mlx.demo.queries import QUERIES
from videoprism_mlx.demo.results import Demo


@pytest.fixture(scope="module")
def shown() -> Demo:
    return small_demo()


@pytest.fixture(scope="module")
def page(shown: Demo) -> Page:
    return Page(shown.page.read_text(encoding="utf-8"))


def opened(uri: str) -> Image.Image:
    start = "data:image/webp;base64,"
    assert uri.startswith(start)
    return Image.open(io.BytesIO(base64.b64decode(uri[len(start) :], validate=True)))


def test_the_page_loads_nothing_from_elsewhere(page: Page) -> None:
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "video", "object", "a", "form"}
    for _, attributes in page.tags:
        for name in ("src", "srcset"):
            assert attributes.get(name, "data:").startswith("data:")
        assert not any(name.startswith("on") or name == "href" for name in attributes)
    assert "url(" not in "".join(page.text["style"]) + str(page.tags).replace("data:", "")
    assert page.all("html") == [{"lang": "en"}] and len(page.all("h1")) == 1
    assert any("default-src 'none'" in each.get("content", "") for each in page.all("meta"))


def test_the_page_has_each_query_with_its_clips_and_marks(page: Page, shown: Demo) -> None:
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
    assert f"true for {sum(turn.turns for turn in shown.turns)} of 3 clips" in whole


def test_there_is_a_dot_for_each_clip_and_right_ones_are_solid(page: Page, shown: Demo) -> None:
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


def test_images_play_the_frames_of_the_files(page: Page, shown: Demo) -> None:
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
        steps = np.abs(np.diff(frames.astype(int), axis=0)).max(axis=(1, 2, 3))
        if steps.min() > 20:  # Frames that look alike become one.
            assert len(drawn) == FRAMES == len(frames)
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


def test_the_gallery_shows_some_of_many_clips(shown: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demopage, "GALLERY", 5)
    few = Page(demopage.page(shown))
    small = [image for image in few.all("img") if image["width"] == str(demopage.SMALL)]
    assert len(small) == 5 and "the first 5" in "".join(few.text["p"])


def test_the_picture_shows_what_was_found(shown: Demo) -> None:
    picture = np.array(Image.open(shown.picture))
    assert np.array_equal(picture, draw_picture(shown))
    assert picture.shape[1] == 1600 and 1200 < len(picture) < 1700
