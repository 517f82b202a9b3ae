"""What the page is told: searches, timelines, uploads, previews, and how things stand."""

import io
import os
import shutil
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import media
import numpy as np
import pytest
from PIL import Image
from web_server import ROW, SCENES, Site, serving

import videoprism_mlx as vp
from videoprism_mlx.errors import VideoError
from videoprism_mlx.library.table import ERROR
from videoprism_mlx.library.web import previews as made
from videoprism_mlx.library.web.limits import Limits
from videoprism_mlx.library.web.previews import Busy, Previews

QUERY = "a big blue star moves left at night"


def test_results_are_those_of_a_search(site: Site) -> None:
    answer = site.ask("/api/search", q=QUERY, k=3, all=1).json
    expected = site.searcher.search(QUERY, 3, moments=True)
    assert [(one["name"], one["number"], one["score"]) for one in answer["moments"]] == [
        (one.video, one.number, pytest.approx(one.score, abs=1e-4)) for one in expected
    ]
    assert answer["more"] and not site.ask("/api/search", q=QUERY, k=50).json["more"]
    first = answer["moments"][0]
    picture = Image.open(io.BytesIO(site.ask(f"/picture/{first['id']}/{first['number']}").body))
    assert picture.format == "JPEG"
    assert "path" not in first  # It is for the view of a video.


def test_words_that_the_model_does_not_know(site: Site) -> None:
    for query, unknown in (("a yellow zebra - beach + Qwerty", ["zebra", "qwerty"]), (QUERY, [])):
        assert site.ask("/api/search", q=query).json["unknown"] == unknown


def test_arithmetic_and_more_like_a_moment(site: Site) -> None:
    found = site.ask("/api/search", q="2:a yellow heart - a blue star", k=1).json["moments"]
    assert found[0]["score"] == pytest.approx(
        site.searcher.search("2:a yellow heart - a blue star", 1)[0].score, abs=1e-4
    )
    star = site.video("clip00001.mp4")
    alike = site.ask("/api/search", like=f"{star['id']}:0", k=2).json["moments"]
    assert alike[0]["name"] == "clip00001.mp4" and alike[0]["score"] == pytest.approx(1, abs=1e-3)
    assert alike[1]["score"] < 0.999


def test_a_timeline(site: Site) -> None:
    row = site.video(ROW)
    answer = site.ask(f"/api/video/{row['id']}", q=QUERY).json
    scores = site.searcher.scores(row["id"], QUERY)
    np.testing.assert_allclose(answer["timeline"]["scores"], scores.cosines, atol=1e-4)
    np.testing.assert_allclose(answer["timeline"]["starts"], scores.starts, atol=1e-3)
    assert answer["video"]["path"].endswith(f"deeper/{ROW}")
    assert answer["video"]["duration"] == 3 * 16 * len(SCENES) / 4
    assert site.ask(f"/api/video/{row['id']}").json["timeline"] is None


def test_filters(site: Site) -> None:
    def names(**query: Any) -> set[str]:
        found = site.ask("/api/search", q="a star", k=50, **query).json["moments"]
        return {one["name"] for one in found}

    everything = names()
    assert len(everything) == len(SCENES) + 2
    assert names(longer=5) == {ROW} and names(shorter=3) == everything - {ROW, "old.avi"}
    today = time.strftime("%Y-%m-%d")
    assert names(after=today, before=today) == everything
    assert names(before="2001-01-01") == set()


@pytest.mark.parametrize(
    "query",
    [{"k": "0"}, {"k": "-1"}, {"k": "1e3"}, {"k": "201"}, {"longer": "-5"}, {"longer": "nan"},
     {"after": "yesterday"}, {"before": "2024-99-99"}, {"longer": "9", "shorter": "3"}, {"q": " "},
     {"q": "a -"}, {"q": "0:a"}, {"q": f"{'9' * 350}:a"}],
)  # fmt: skip
def test_questions_that_make_no_sense(site: Site, query: dict[str, str]) -> None:
    answer = site.ask("/api/search", **{"q": "a star", **query})
    assert answer.status == 400 and 10 < len(answer.json["error"]) < 600


@pytest.mark.parametrize("like", ["x", "x:1", ":", "a:-1", "a" * 90 + ":1", "{id}:999", "{id}:x"])
def test_moments_that_are_not_there(site: Site, like: str) -> None:
    star = site.video("clip00001.mp4")["id"]
    assert site.ask("/api/search", like=like.format(id=star)).status in (400, 404)
    assert site.ask("/api/search", upload="nothing").status == 404


def test_dropped_files(site: Site, web_library: Path, tmp_path: Path) -> None:
    clip = (web_library.parent / "clips" / "clip00001.mp4").read_bytes()
    key = site.ask("/api/upload", method="POST", body=clip).json["key"]
    best = site.ask("/api/search", upload=key, k=1).json["moments"][0]
    assert best["name"] == "clip00001.mp4" and best["score"] > 0.999
    frame = vp.read_video(web_library.parent / "clips" / "clip00000.mp4", 1, size=None)[0]
    for form in ("png", "jpeg", "webp", "bmp", "tiff"):
        written = io.BytesIO()
        Image.fromarray(np.round(255 * frame).astype(np.uint8)).save(written, form)
        key = site.ask("/api/upload", method="POST", body=written.getvalue()).json["key"]
        best = site.ask("/api/search", upload=key, k=1).json["moments"][0]
        assert best["name"] == "clip00000.mp4"


@pytest.fixture
def own_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes do not put their temporary files where this test looks."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def left_over() -> set[str]:
    return {one for one in os.listdir(tempfile.gettempdir()) if one.startswith("videoprism_mlx-")}


@pytest.mark.usefixtures("own_temporary")
def test_files_that_cannot_be_used_leave_nothing(site: Site) -> None:
    before = left_over()
    wide = io.BytesIO()
    Image.new("1", (10_000, 6_000)).save(wide, "png")
    cut = media.clip("short.mp4").read_bytes()
    for body, status, said in (
        (b"", 400, "is empty"),
        (b"no video\n" * 100, 422, "the file is text"),
        (cut[: len(cut) // 2], 422, "the file"),
        (wide.getvalue(), 422, "at most 50 million pixels"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), 422, "not an image"),
        (b"#EXTM3U\n/etc/passwd\n", 422, "the file is text"),
    ):
        answer = site.ask("/api/upload", method="POST", body=body)
        assert answer.status == status and said in answer.json["error"]
        assert tempfile.gettempdir() not in answer.json["error"]
    assert left_over() == before


@pytest.mark.usefixtures("own_temporary")
def test_limits_of_uploads(web_library: Path, tmp_path: Path) -> None:
    limits = Limits(upload_bytes=60_000, upload_duration=3, upload_pixels=192 * 192)
    clips = web_library.parent / "clips"
    small = (clips / "clip00000.mp4").read_bytes()
    before = left_over()
    with serving(web_library, tmp_path, limits) as site:

        def refused(body: bytes, **headers: str) -> tuple[int, str]:
            answer = site.ask("/api/upload", headers, "POST", body)
            return answer.status, answer.json["error"]

        assert site.ask("/api/upload", method="POST", body=small).status == 200
        large = {"Content-Length": str(2**30)}
        assert refused(b"x", **large)[0] == 413
        chunks = b"".join(b"4000\r\n" + bytes(0x4000) + b"\r\n" for _ in range(4)) + b"0\r\n\r\n"
        assert refused(chunks, **{"Transfer-Encoding": "chunked"})[0] == 413
        status, said = refused((clips / "old.avi").read_bytes()[:60_000])
        assert status == 422
        media.write(tmp_path / "long.mp4", range(40), fps=10, size=(64, 48))
        status, said = refused((tmp_path / "long.mp4").read_bytes())
        assert (status, said) == (
            422,
            "the clip is 4 s long; one of at most 3 s can be searched by",
        )
    assert left_over() == before


def test_a_preview_shows_the_frames_of_its_part(web_library: Path, tmp_path: Path) -> None:
    limits = Limits(preview_length=1, preview_height=48)
    with serving(web_library, tmp_path / "previews", limits) as site:
        old = site.video("old.avi")
        assert old["codec"] == "mpeg4"
        for part, expected in ((0, range(30)), (2, range(60, 90)), (3, range(90, 100))):
            answer = site.ask(f"/preview/{old['id']}/{part}")
            assert answer.status == 200 and answer.headers["content-type"] == "video/mp4"
            (tmp_path / "part.mp4").write_bytes(answer.body)
            frames = vp.read_video(tmp_path / "part.mp4", None, size=None)
            assert frames.shape[1:3] == (48, 64)
            assert media.numbers(frames) == [*expected]
        kept = sorted((tmp_path / "previews").iterdir())
        times = [path.stat().st_mtime_ns for path in kept]
        assert len(kept) == 3 and site.ask(f"/preview/{old['id']}/2").status == 200
        assert sorted((tmp_path / "previews").iterdir()) == kept
        later = [path.stat().st_mtime_ns for path in kept]
        assert sum(now != before for now, before in zip(later, times, strict=True)) == 1


def test_previews_have_sound(tmp_path: Path) -> None:
    sounding = tmp_path / "sound.mkv"
    tone = ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100:duration=3"]
    shown = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=3"]
    media.ffmpeg(*shown, *tone, "-c:v", "mpeg2video", "-c:a", "pcm_s16le", sounding)
    state = sounding.stat()
    row = dict(path=str(sounding), size=state.st_size, modified=state.st_mtime_ns, duration=3.0)
    preview = Previews(Limits(preview_length=2), tmp_path / "previews").get(row, 0)
    with closing(av.open(str(preview))) as opened:
        [video], [sound] = opened.streams.video, opened.streams.audio
        assert (video.codec_context.name, sound.codec_context.name) == ("h264", "aac")
        heard = np.concatenate([one.to_ndarray()[0] for one in opened.decode(sound)])
    assert len(heard) / sound.rate == pytest.approx(2, abs=0.1)
    strengths = np.abs(np.fft.rfft(heard[: sound.rate]))
    assert int(strengths.argmax()) == pytest.approx(440, abs=2)


def test_a_folder_of_images_has_a_preview(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(30):
        Image.fromarray(media.frame(number)).save(folder / f"{number}.png")
    row = dict(path=str(folder), size=1, modified=1, duration=1.2)
    preview = Previews(Limits(preview_length=1), tmp_path / "previews").get(row, 1)
    assert media.numbers(vp.read_video(preview, None, size=None)) == [*range(25, 30)]


def test_previews_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Semaphore(0), threading.Event()
    asked = []

    def slowly(path: str, start: float, target: Path, *_: object) -> None:
        asked.append(start)
        begun.release()
        go_on.wait(10)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(b"x" * 100)
        os.utime(target, (start, start))

    monkeypatch.setattr(made, "make_preview", slowly)
    limits = Limits(preview_length=1, previews=2, waiting_previews=4)
    previews = Previews(limits, tmp_path / "previews")
    row = dict(path="a", size=1, modified=1, duration=9.5)
    threads = [threading.Thread(target=previews.get, args=(row, n)) for n in (1, 1, 2, 3)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        assert begun.acquire(timeout=10)
    assert len(asked) == 2  # Two at once; the others wait.
    with pytest.raises(Busy):
        while True:  # Until all four are waiting.
            assert not threads[0].join(0.01)
            previews.get({**row, "path": "b"}, 1)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert sorted(asked) == [1, 2, 3]  # The first part was asked for twice, and made once.
    small = Previews(Limits(preview_length=1, preview_bytes=350), tmp_path / "previews")
    kept = [small.get(row, number) for number in (1, 4, 5)]
    # What was not asked for the longest went. Part 1 was asked for again.
    assert sorted((tmp_path / "previews").iterdir()) == sorted(kept)
    for number in (-1, 10):
        with pytest.raises(VideoError, match=r"the video ends before"):
            previews.get(row, number)


def test_what_another_process_adds_is_seen(web_library: Path, tmp_path: Path) -> None:
    library = shutil.copytree(web_library, tmp_path / "library")
    with serving(library, tmp_path / "previews") as site:
        before = site.ask("/api/status").json
        assert (before["videos"], before["errors"]) == (len(SCENES) + 2, 0)
        assert before["adding"] is False and before["moments"] > len(SCENES)
        other = vp.Library(library).tables()
        row = other.rows()[0]
        other.put_videos([{**row, "id": "bad", "path": "/bad.mp4", "status": ERROR}])
        deadline = time.monotonic() + 10
        while not (now := site.ask("/api/status").json)["adding"] and time.monotonic() < deadline:
            time.sleep(0.1)
        assert (now["videos"], now["errors"], now["adding"]) == (len(SCENES) + 2, 1, True)
        assert site.ask("/media/bad").status == 404
        folders = site.ask("/api/folders").json["folders"]
        assert [(one["name"], one["videos"]) for one in folders] == [("deeper", 1)]
