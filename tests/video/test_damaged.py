"""Video files that are damaged, cut short, or something else."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import media
import numpy as np
import pytest

from videoprism_mlx.errors import EXPECTED, VideoError
from videoprism_mlx.video import sampling
from videoprism_mlx.video.ffmpeg import opening, walker
from videoprism_mlx.video.ffmpeg.decoder import Decoder
from videoprism_mlx.video.ffmpeg.reader import VideoFile

ALL = range(media.FRAMES)


def shown(path: Path, *arguments: Any, **options: Any) -> list[int]:
    """The numbers of the frames that are read, in full size."""
    return media.numbers(sampling.read_video(path, *arguments, size=None, **options))


def spread(numbers: list[int], count: int) -> list[int]:
    """`count` of the numbers, as the official demos choose them."""
    return [numbers[n] for n in np.linspace(0, len(numbers), count, endpoint=False).astype(int)]


def test_a_damaged_file_that_claims_millions_of_frames(tmp_path: Path) -> None:
    claiming = media.declare(media.clip("mpeg4.avi"), tmp_path / "claiming.avi", 10**8)
    path = media.damage(claiming, tmp_path / "damaged.avi")
    attempts = []
    real = Decoder._decoded

    def decoded(file: Decoder, *read: Any) -> Iterator[Any]:
        for frame in real(file, *read):
            attempts.append(1)
            yield frame

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Decoder, "_decoded", decoded)
        with pytest.raises(VideoError, match=r"breaks off after \d\d frames"):
            shown(path, None)
    assert len(attempts) < 1000


def test_a_damaged_middle() -> None:
    path = media.clip("damaged.mp4")
    with pytest.raises(
        VideoError, match=r"breaks off after 5\d frames of 100 \(1\.\d s\).*partial"
    ):
        shown(path)
    with pytest.raises(VideoError, match="breaks off"):
        shown(path, None)
    frames = sampling.read_video(path, None, size=None, partial=True)
    assert 80 < len(frames) < media.FRAMES
    assert media.numbers(frames[:50]) == list(range(50))
    assert media.numbers(frames[-10:]) == list(range(90, 100))
    times = sampling.sample(path, lambda image, aspect: None, None, partial=True)[1]
    assert np.allclose(times[-10:], np.arange(90, 100) / media.FPS, atol=1e-3)


def test_what_comes_before_the_damage_is_had_without_asking() -> None:
    assert shown(media.clip("damaged.mp4"), None, end=1) == list(range(30))
    assert shown(media.clip("short.mp4"), None, end=1) == list(range(30))


def test_a_download_that_broke_off(monkeypatch: pytest.MonkeyPatch) -> None:
    path = media.clip("short.mp4")
    for count in (None, 16):
        with pytest.raises(
            VideoError, match=r"after [34]\d frames of 100 \(1\.\d s\).*partial=True"
        ):
            shown(path, count)
    frames = shown(path, None, partial=True)
    assert 30 <= len(frames) < 60
    assert frames == list(range(len(frames)))
    assert shown(path, partial=True) == spread(frames, 16)
    monkeypatch.setattr(walker, "SEEK_BEYOND", 4)
    assert shown(path, partial=True) == spread(frames, 16)


@pytest.mark.parametrize(
    "name",
    ["b.mkv", "b.avi", "vp9.webm", "mjpeg.avi", "windows.wmv", "palette.gif", "theora.ogv"],
)
def test_the_start_of_a_file(name: str, tmp_path: Path) -> None:
    """A file without its end says so, and the part that is there can be had."""
    path = media.cut(media.clip(name), tmp_path / name, end=0.6)
    frames = sampling.read_video(path, None, size=None, partial=True)
    assert 25 < len(frames) < 70
    assert media.numbers(frames[:-3]) == list(range(len(frames) - 3))
    with pytest.raises(VideoError, match=r"breaks off.*partial"):
        shown(path)


@pytest.mark.parametrize("at", [0.3, 0.55, 0.8])
def test_frames_that_a_transport_stream_lost(at: float, tmp_path: Path) -> None:
    """The packets around a loss are marked, and time passes between them."""
    path = media.damage(media.clip("long.ts"), tmp_path / "lost.ts", at, length=0.02)
    times = sampling.sample(path, lambda image, aspect: None, None, partial=True)[1]
    assert 3100 < len(times) < 3200
    lost = np.flatnonzero(np.diff(times) > 0.05)[0]
    message = r"breaks off after .*frame \d+, at \d+\.\d+ s, is damaged"
    with pytest.raises(VideoError, match=message) as error:
        sampling.read_video(path, None, size=8)
    named = int(str(error.value).split("frame ")[1].split(",")[0])
    assert abs(named - int(lost)) <= 8
    assert shown(path, 16, end=5) == spread(list(range(150)), 16)


@pytest.mark.parametrize("at", [0.3, 0.55, 0.8])
def test_frames_that_a_matroska_file_lost(at: float, tmp_path: Path) -> None:
    """FFmpeg goes on at the next cluster without a word. The elements tell."""
    path = media.damage(media.clip("long.mkv"), tmp_path / "lost.mkv", at, length=0.02)
    assert 3000 < len(sampling.read_video(path, None, size=8, partial=True)) < 3200
    with pytest.raises(VideoError, match="its elements are damaged at byte"):
        sampling.read_video(path, None, size=8)


@pytest.mark.parametrize("name", ["streamable.mp4", "b.mkv", "b.flv", "mpeg2.ts"])
def test_a_part_is_the_same_each_time(name: str, tmp_path: Path) -> None:
    path = media.damage(media.clip(name), tmp_path / name, at=0.5)
    first, *others = (sampling.read_video(path, None, size=18, partial=True) for _ in range(4))
    assert all(np.array_equal(first, other) for other in others)


@pytest.mark.parametrize("name", ["joined", "later"])
def test_recordings_that_were_joined_are_whole(name: str, tmp_path: Path) -> None:
    second = {"joined": "b.ts", "later": "after.ts"}[name]
    path = media.join(tmp_path / "both.ts", media.clip("b.ts"), media.clip(second))
    assert shown(path, None) == [*ALL, *ALL]


def test_an_unfinished_recording() -> None:
    for partial in (False, True):
        with pytest.raises(VideoError, match=r"unfinished\.mp4 (cannot be opened|is no video)"):
            VideoFile(media.clip("unfinished.mp4"), partial)


def test_av1_is_read() -> None:
    assert shown(media.clip("av1.mp4"), None) == list(ALL)


@pytest.mark.parametrize("name", ["sound.mp3", "sound.m4a"])
def test_sound_alone(name: str) -> None:
    with pytest.raises(VideoError, match=r"no video that FFmpeg can open.*sound alone"):
        VideoFile(media.clip(name))


@pytest.mark.parametrize("content", [b"Not a video.\n" * 100, b"x", bytes(100_000)])
def test_something_else(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match="no video that FFmpeg can open"):
        VideoFile(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        # FFmpeg would draw the text of .txt and .nfo files, and follow playlists to other files.
        ("notes.txt", "Not a video.\n" * 500),
        ("clip.nfo", "Not a video.\n" * 500),
        ("clip.mp4", "ffconcat version 1.0\nfile other.ts\n"),
        ("list.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nother.ts\n#EXT-X-ENDLIST\n"),
    ],
)
def test_text(name: str, text: str, tmp_path: Path) -> None:
    media.join(tmp_path / "other.ts", media.clip("b.ts"))
    (tmp_path / name).write_text(text)
    with pytest.raises(VideoError):
        VideoFile(tmp_path / name)


@pytest.mark.parametrize("ending", ["mp4", "ts", "avi", "h264", "mpg", "gif", "mjpeg", "mkv"])
def test_noise(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"noise.{ending}"
    path.write_bytes(np.random.RandomState(0).bytes(200_000))
    with pytest.raises(VideoError, match=r"no video that FFmpeg can open|no frame"):
        VideoFile(path)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(VideoError, match="is empty: it has 0 bytes"):
        VideoFile(tmp_path / "clip.mp4")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = media.join(tmp_path / "clip.mp4", media.clip("one.mp4"))
    path.chmod(0)
    if os.geteuid() == 0:  # Nothing is forbidden to root.

        def refuse(*arguments: Any) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(opening.os, "open", refuse)
    with pytest.raises(PermissionError, match=r"clip\.mp4"):
        VideoFile(path)


def test_gigantic_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MAX_PIXELS", 10_000)
    with pytest.raises(VideoError, match=r"frames are 128 x 96; expected at most 10,000 pixels"):
        VideoFile(media.clip("b.mp4"))


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/clip\xff.mp4"
    try:
        with open(path, "wb") as file:
            file.write(media.clip("b.mp4").read_bytes())
    except OSError:
        pytest.skip("this file system takes no such names")
    read = (
        "import os, sys; import videoprism_mlx as vp\n"
        "try: print(vp.read_video(os.fsdecode(bytes.fromhex(sys.argv[1])), 2, size=8).shape)\n"
        "except vp.VideoError as error: print('VideoError')"
    )
    done = subprocess.run([sys.executable, "-c", read, path.hex()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("(2, 8, 8, 3)", "VideoError")


@pytest.mark.parametrize("error", [MemoryError("12 GB"), av.error.ExternalError(1, "12 GB")])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Converter.__call__", "frame 0 cannot be decoded: .*12 GB"),
        ("Decoder._decoded", "cannot be opened: .*12 GB"),
    ],
)
def test_a_decoder_that_fails(
    name: str, message: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(f"videoprism_mlx.video.ffmpeg.reader.{name}", refuse)
    with pytest.raises(VideoError, match=r"b\.mp4:? " + message):
        shown(media.clip("b.mp4"))


@pytest.mark.parametrize(
    "name", ["two.mp4", "b.ts", "mpeg4.avi", "vp9.webm", "palette.gif", "windows.wmv", "b.flv"]
)
def test_damaged_videos_are_read_or_refused(name: str, tmp_path: Path) -> None:
    drawn = random.Random(0)
    whole = media.clip(name).read_bytes()
    path = tmp_path / name
    outcomes = set()
    for partial in (False, True) * 6:
        content = bytearray(whole[: drawn.choice([len(whole), drawn.randrange(len(whole))])])
        for _ in range(drawn.randrange(20)):
            end = drawn.choice([len(content), min(len(content), 600)])
            content[drawn.randrange(end)] = drawn.choice([0, 255, drawn.randrange(256)])
        path.write_bytes(content)
        try:
            outcomes.add(sampling.read_video(path, 2, size=18, partial=partial).shape)
        except EXPECTED:
            outcomes.add("refused")
    assert outcomes <= {"refused", (2, 18, 18, 3)}
