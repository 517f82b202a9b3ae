"""The page in a real browser: type, see, play, seek, drop, go back; by keyboard, and on a phone."""

import base64
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from web_browser import Watched, launched
from web_server import ROW, SCENES, Site, quote, serving

import videoprism_mlx as vp
from videoprism_mlx.library.table import quoted

# Other tests beside it may keep a browser from drawing for many seconds.
pytestmark = pytest.mark.slow

Open = Callable[..., Watched]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as running:
        yield running


@pytest.fixture
def opened(browser: Any, site: Site) -> Iterator[Open]:
    """Opens a page of the site. At the end, nothing may have gone wrong on it."""
    pages: list[Watched] = []

    def open_page(path: str = "/", **options: Any) -> Watched:
        pages.append(Watched(browser, site.address, **options))
        pages[-1].open(path)
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()


def names(page: Any) -> list[str]:
    """The names of the videos that are found."""
    page.locator(".card:not(.ghost) .name").first.wait_for()
    return page.locator(".card .name").all_inner_texts()


def test_type_see_play(opened: Open, site: Site) -> None:
    watched = opened()
    page = watched.page
    assert names(page)[0] in {"old.avi", ROW, *(f"clip{n:05d}.mp4" for n in range(len(SCENES)))}
    page.get_by_role("searchbox").fill("a yellow heart on the beach")
    page.get_by_role("heading", name="5 moments for “a yellow heart on the beach”").wait_for()
    assert "q=a+yellow+heart+on+the+beach" in page.url
    expected = site.searcher.search("a yellow heart on the beach", 24)
    assert names(page) == [one.video for one in expected]
    assert page.locator("#live").inner_text() == "5 moments “a yellow heart on the beach”"

    shot = page.locator(".shot").nth(names(page).index(ROW))
    moment = expected[names(page).index(ROW)]
    shot.hover()
    first = watched.plays(".shot video", moment.start)
    assert moment.start <= first <= moment.end + 0.2
    assert page.evaluate("document.querySelector('.shot video').muted")
    shot.click()
    watched.plays(".shot video", moment.start)
    assert not page.evaluate("document.querySelector('.shot video').muted")
    assert shot.get_attribute("aria-pressed") == "true"
    # It is repeated, and does not go on beyond its end.
    page.wait_for_timeout(300)
    assert page.evaluate("document.querySelector('.shot video').currentTime") <= moment.end + 0.3
    page.mouse.move(0, 0)
    assert page.locator(".shot video").count() == 1  # With sound, it goes on.
    shot.click()
    assert page.locator(".shot video").count() == 0


def test_a_video_its_timeline_and_the_way_back(opened: Open, site: Site) -> None:
    row = site.video(ROW)
    watched = opened("/?q=something+spinning")
    page = watched.page
    found = names(page)
    page.get_by_role("link", name=ROW).click()
    assert page.get_by_role("heading", name=ROW).inner_text() == ROW  # Its name is text.
    line = page.get_by_role("slider", name=re.compile("Time"))
    watched.plays(".stage video")
    box = line.bounding_box()
    page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 20)
    seconds = 0.75 * row["duration"]
    assert watched.plays(".stage video", seconds - 0.5) == pytest.approx(seconds, abs=1.5)
    page.keyboard.press("Home")
    page.wait_for_function("() => document.querySelector('.stage video').currentTime < 3")
    page.keyboard.press("End")
    page.wait_for_function("() => document.querySelector('.stage video').currentTime > 30")
    assert "of 0:36, score" in line.get_attribute("aria-valuetext")
    assert page.locator(".film img").count() == 9
    paused = "document.querySelector('.stage video').paused"
    page.get_by_role("button", name="Play").click()
    page.wait_for_function(f"() => !{paused}")
    page.get_by_role("button", name="Pause").click()
    page.wait_for_function(f"() => {paused}")

    page.get_by_role("button", name="More like this moment").click()
    page.get_by_role("heading", name=f"5 moments like a moment of {ROW}").wait_for()
    assert names(page)[0] == ROW
    page.go_back()
    page.get_by_role("heading", name=ROW).wait_for()
    page.get_by_role("button", name="Results").click()
    page.get_by_role("heading", name="5 moments for “something spinning”").wait_for()
    assert names(page) == found and "v=" not in page.url


def test_words_that_the_model_does_not_know_are_named(opened: Open) -> None:
    page = opened("/?q=a+yellow+<b>zebra</b>").page
    told = page.locator("main").get_by_text("The model of this library does not know")
    told.wait_for()
    assert "“zebra”" in told.inner_text()
    page.get_by_role("searchbox").fill("a yellow heart")
    page.get_by_role("heading", name="moments for “a yellow heart”").wait_for()
    assert told.count() == 0


def test_a_question_mark_in_the_empty_box_lists_the_keys(opened: Open) -> None:
    page = opened().page
    names(page)
    page.get_by_role("searchbox").press("?")
    page.get_by_role("heading", name="Keyboard").wait_for()
    assert page.get_by_role("searchbox", include_hidden=True).input_value() == ""


def test_the_line_of_a_video_with_one_moment(opened: Open, site: Site) -> None:
    """It has no curve: there is one score."""
    page = opened(f"/?q=a+heart&v={site.video('clip00001.mp4')['id']}").page
    page.get_by_role("slider", name=re.compile("^Time$")).wait_for()
    assert page.locator(".curve.flat").count() == 1 and page.locator(".edge").count() == 0
    assert page.locator(".film img").count() == 10


def test_a_codec_that_no_browser_plays(opened: Open, site: Site) -> None:
    watched = opened(f"/?v={site.video('old.avi')['id']}&t=1")
    assert watched.plays(".stage video", 1) < 3.5
    source = watched.page.evaluate("document.querySelector('.stage video').src")
    assert "/preview/" in source


def test_dropped_files_are_searched_by(opened: Open, web_library: Path) -> None:
    clip = web_library.parent / "clips" / "clip00001.mp4"
    page = opened().page
    names(page)
    content = base64.b64encode(clip.read_bytes()).decode()
    page.evaluate(
        """([content, name]) => {
          const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
          const data = new DataTransfer();
          data.items.add(new File([bytes], name, { type: "video/mp4" }));
          for (const kind of ["dragenter", "dragover", "drop"])
            document.body.dispatchEvent(
              new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        [content, clip.name],
    )
    page.get_by_role("heading", name="5 moments like clip00001.mp4").wait_for()
    assert names(page)[0] == "clip00001.mp4"
    page.locator("#file").set_input_files(web_library.parent / "clips" / "clip00000.mp4")
    page.get_by_role("heading", name="5 moments like clip00000.mp4").wait_for()
    assert names(page)[0] == "clip00000.mp4"
    page.go_back()
    page.get_by_role("heading", name="5 moments like clip00001.mp4").wait_for()
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("heading", name="Newest videos").wait_for()


def test_files_that_cannot_be_used(opened: Open) -> None:
    watched = opened()
    page = watched.page
    page.locator("#file").set_input_files(
        {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no video\n" * 9}
    )
    page.get_by_role("heading", name="That did not work").wait_for()
    said = page.locator("#main").get_by_text("The file is text, and no video that FFmpeg can open.")
    assert said.is_visible()
    page.get_by_role("button", name="Back").press("Enter")
    page.get_by_role("heading", name="Newest videos").wait_for()
    # The browser itself says so.
    assert [one for one in watched.wrong if "422" not in one] == []
    watched.wrong.clear()


def test_keyboard_alone(opened: Open) -> None:
    watched = opened("/?q=a+yellow+heart")
    page = watched.page
    names(page)
    press = page.keyboard.press
    press("/")
    assert page.evaluate("document.activeElement.id") == "query"
    press("Control+a")
    page.keyboard.type("a blue star")
    press("Enter")
    page.get_by_role("heading", name="5 moments for “a blue star”").wait_for()
    press("ArrowDown")
    focused = "document.activeElement.getAttribute('aria-label')"
    first = page.evaluate(focused)
    assert first.startswith("Play 0:")
    watched.plays(".shot video")
    press("ArrowRight")
    second = page.evaluate(focused)
    assert second != first
    press("Enter")
    page.wait_for_function("() => document.querySelector('.shot.loud video')?.muted === false")
    press("ArrowLeft")
    assert page.evaluate(focused) == first
    press("o")
    page.locator(".stage video").wait_for()
    watched.plays(".stage video")
    press(" ")
    page.wait_for_function("() => document.querySelector('.stage video').paused")
    press("m")
    page.wait_for_function("() => document.querySelector('.stage video').muted")
    press("Escape")
    page.get_by_role("heading", name="5 moments for “a blue star”").wait_for()
    press("?")
    assert page.get_by_role("dialog", name="Keyboard").is_visible()
    press("Escape")
    assert not page.get_by_role("dialog").is_visible()
    page.locator("body").press("ArrowDown")
    press("l")
    page.get_by_role("heading", name=re.compile("5 moments like a moment of")).wait_for()


def test_an_address_is_a_bookmark(opened: Open, web_library: Path) -> None:
    inside = quote(str(web_library.parent / "clips" / "deeper"))
    page = opened(f"/?q=a+star&folder={inside}&longer=5").page
    assert names(page) == [ROW]
    assert page.locator("#filtered").inner_text() == "2"
    page.get_by_text("Filters").click()
    page.get_by_label("Folder").locator("option", has_text="deeper (1)").wait_for(state="attached")
    page.get_by_label("Folder").select_option("")
    page.get_by_label("Longer than").select_option("3600")
    page.get_by_role("heading", name="Nothing found").wait_for()
    page.get_by_role("button", name="Clear the filters").click()
    assert len(names(page)) == 5
    page.reload()
    assert len(names(page)) == 5 and "folder" not in page.url


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(opened: Open, site: Site, scheme: str) -> None:
    watched = opened(
        "/?q=something+spinning",
        viewport={"width": 390, "height": 844},
        has_touch=True,
        is_mobile=True,
        color_scheme=scheme,
    )
    page = watched.page
    names(page)
    for path in ("/", "/?q=something+spinning", f"/?q=a+star&v={site.video(ROW)['id']}"):
        watched.open(path)
        page.locator(".card .name, .stage video").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper))) < 150) is (scheme == "dark")
    watched.open("/?q=something+spinning")
    names(page)
    page.locator(".shot").first.tap()
    watched.plays(".shot video")
    page.set_viewport_size({"width": 1200, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 1200


def test_what_another_process_adds_appears(browser: Any, web_library: Path, tmp_path: Path) -> None:
    library = shutil.copytree(web_library, tmp_path / "library")
    with serving(library, tmp_path / "previews") as site:
        watched = Watched(browser, site.address)
        page = watched.open("/?q=a+star")
        names(page)
        page.get_by_text("5 videos", exact=True).wait_for()
        tables = vp.Library(library).tables()
        [row] = tables.rows(f"id = {quoted(site.video('old.avi')['id'])}")
        tables.put_videos([{**row, "id": "another", "path": "/another.avi"}])
        page.get_by_text("6 videos, adding more").wait_for()
        page.get_by_role("button", name="New videos: search again").click()
        page.get_by_role("button", name="New videos").wait_for(state="detached")
        watched.close()
