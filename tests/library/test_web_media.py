"""Original files over HTTP, by byte ranges (RFC 9110)."""

import os
import re
import shutil
from pathlib import Path

import pytest
from web_server import SCENES, Site, make_library, serving

from videoprism_mlx.library.web.media import Span, parse_range

NAME = "clip00000.mp4"


@pytest.mark.parametrize(
    ("header", "spans"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=0-", [(0, 100)]),
        ("bytes=10-19", [(10, 20)]),
        ("bytes=90-1000", [(90, 100)]),
        ("bytes=-10", [(90, 100)]),
        ("bytes=-1000", [(0, 100)]),
        ("BYTES = 5-6", [(5, 7)]),
        ("bytes=99-", [(99, 100)]),
        ("bytes=100-", []),
        ("bytes=-0", []),
        ("bytes=100-200, 500-", []),
        ("bytes=0-0, -1", [(0, 1), (99, 100)]),
        ("bytes=-1, 0-0", [(99, 100), (0, 1)]),
        ("bytes=0-0, 200-", [(0, 1)]),
        ("bytes=0-10, 5-20", [(0, 21)]),
        ("bytes=0-9,10-19", [(0, 20)]),
        ("bytes=" + ",".join(["0-"] * 1000), [(0, 100)]),
        # These are ignored, and the whole file is sent.
        ("bytes=5-2", None),
        ("bytes=", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=1-2-3", None),
        ("bytes=--5", None),
        ("bytes=0x1-2", None),
        ("bytes=\u0661-2", None),
        ("bytes=" + "9" * 30 + "-", None),
        ("items=0-1", None),
        ("0-1", None),
        ("bytes=" + ",".join(f"{2 * i}-{2 * i}" for i in range(17)), None),
    ],
)
def test_ranges(header: str, spans: list[tuple[int, int]] | None) -> None:
    assert parse_range(header, 100) == (None if spans is None else [Span(*one) for one in spans])


@pytest.fixture
def content(site: Site, web_library: Path) -> bytes:
    return (web_library.parent / "clips" / NAME).read_bytes()


@pytest.fixture
def path(site: Site) -> str:
    return f"/media/{site.video(NAME)['id']}"


def test_a_whole_file_and_its_head(site: Site, path: str, content: bytes) -> None:
    whole = site.ask(path)
    assert (whole.status, whole.body) == (200, content)
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["accept-ranges"] == "bytes"
    # A range is defined for GET alone.
    head = site.ask(path, {"Range": "bytes=0-9"}, "HEAD")
    assert (head.status, head.body) == (200, b"")
    for name in ("content-length", "etag", "last-modified", "content-type"):
        assert head.headers[name] == whole.headers[name]


def test_parts_of_a_file(site: Site, path: str, content: bytes) -> None:
    size = len(content)
    for given, first, end in (
        ("0-99", 0, 100),
        ("100-", 100, size),
        ("-7", size - 7, size),
        (f"5-{10 * size}", 5, size),
    ):
        part = site.ask(path, {"Range": f"bytes={given}"})
        assert (part.status, part.body) == (206, content[first:end])
        assert part.headers["content-range"] == f"bytes {first}-{end - 1}/{size}"
    beyond = site.ask(path, {"Range": f"bytes={size}-"})
    assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    assert site.ask(path, {"Range": "bytes=9-3"}).body == content


def test_several_parts_at_once(site: Site, path: str, content: bytes) -> None:
    answer = site.ask(path, {"Range": "bytes=0-3, 50-59, -5"})
    assert answer.status == 206 and len(answer.body) == int(answer.headers["content-length"])
    found = re.fullmatch(r"multipart/byteranges; boundary=(\w+)", answer.headers["content-type"])
    assert found is not None
    first, *parts, last = answer.body.split(f"\r\n--{found[1]}".encode())
    assert (first, last) == (b"", b"--\r\n")
    spans = [(0, 4), (50, 60), (len(content) - 5, len(content))]
    for part, (begin, end) in zip(parts, spans, strict=True):
        head, _, body = part.partition(b"\r\n\r\n")
        assert body == content[begin:end]
        assert f"content-range: bytes {begin}-{end - 1}/{len(content)}".encode() in head
        assert b"content-type: video/mp4" in head


def test_conditions(site: Site, path: str, content: bytes) -> None:
    known = site.ask(path).headers
    etag, modified = known["etag"], known["last-modified"]
    part = {"Range": "bytes=0-9"}
    assert site.ask(path, {**part, "If-Range": etag}).status == 206
    assert site.ask(path, {**part, "If-Range": modified}).status == 206
    for other in ('"another"', f"W/{etag}", "Thu, 01 Jan 1970 00:00:00 GMT"):
        assert site.ask(path, {**part, "If-Range": other}).body == content
    for headers in (
        {"If-None-Match": etag},
        {"If-None-Match": f'"x", W/{etag}'},
        {"If-Modified-Since": modified},
    ):
        answer = site.ask(path, headers)
        assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)
    newer = {"If-None-Match": '"x"', "If-Modified-Since": modified}
    assert site.ask(path, newer).status == 200


def test_a_file_that_is_another_one_now_is_not_served(tmp_path: Path) -> None:
    library = make_library(tmp_path)
    secret = tmp_path / "secret.mp4"
    secret.write_text("secret")
    with serving(library, tmp_path / "previews") as site:
        names = [f"clip{number:05d}.mp4" for number in range(len(SCENES))]
        ids = [site.video(name)["id"] for name in names]
        written, linked, gone = (tmp_path / "clips" / name for name in names)
        os.utime(written, ns=(0, written.stat().st_mtime_ns + 1))
        linked.unlink()
        linked.symlink_to(secret)
        gone.unlink()
        for video, said in zip(ids, ("has changed", "not there", "not there"), strict=True):
            for address in (f"/media/{video}", f"/preview/{video}/0"):
                answer = site.ask(address)
                assert answer.status == 410 and said in answer.json["error"]
        # A pipe or a folder in the place of a file keeps nobody waiting.
        linked.unlink()
        os.mkfifo(linked)
        gone.mkdir()
        assert [site.ask(f"/media/{video}").status for video in ids] == [410] * 3
    shutil.rmtree(tmp_path / "clips")
