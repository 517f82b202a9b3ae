"""Files that nobody vouches for: no other file is opened, nothing hangs, damage is seen."""

import os
import subprocess
import sys
from pathlib import Path

import media
import numpy as np
import pytest

import videoprism_mlx as vp
from videoprism_mlx.errors import VideoError
from videoprism_mlx.video.ffmpeg.reader import VideoFile

PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"


def read(path: Path, partial: bool = False) -> list[int]:
    """The numbers of all frames."""
    return media.numbers(vp.read_video(path, None, size=None, partial=partial))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.m3u8", PLAYLIST),
        ("list.mp4", PLAYLIST),
        ("list.mp4", "\0\0\0\0" + PLAYLIST),  # Not text at first sight.
        ("script.ffconcat", "ffconcat version 1.0\nfile '{}'\n"),
        ("session.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n# {}\n"),
        ("dash.mpd", "<MPD><Period><BaseURL>{}</BaseURL></Period></MPD>"),
    ],
)
def test_no_file_leads_to_another(name: str, content: str, tmp_path: Path) -> None:
    other = media.clip("b.ts")
    (tmp_path / name).write_text(content.format(other))
    with pytest.raises(VideoError, match=r"is text, and no video|no video that FFmpeg can open"):
        VideoFile(tmp_path / name)


def test_a_script_that_is_no_text_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FFmpeg's own rule that only local files are opened would let this one through."""
    monkeypatch.chdir(tmp_path)
    media.join(tmp_path / "v.ts", media.clip("b.ts"))
    (tmp_path / "a.ffconcat").write_text("ffconcat version 1.0\n# \x01\nfile 'v.ts'\n")
    with pytest.raises(VideoError, match="no video that FFmpeg can open"):
        VideoFile("a.ffconcat")


def test_a_title_that_is_not_utf8(tmp_path: Path) -> None:
    media.remux(media.clip("b.mkv"), tmp_path / "a.mkv", after=["-metadata", "title=XXXXXXXX"])
    content = (tmp_path / "a.mkv").read_bytes()
    assert content.count(b"XXXXXXXX") == 1
    (tmp_path / "a.mkv").write_bytes(content.replace(b"XXXXXXXX", b"caf\xe9\xff\xfe\x80!"))
    assert read(tmp_path / "a.mkv") == list(range(media.FRAMES))


def test_a_folder_is_no_video_and_nothing_stays_open(tmp_path: Path) -> None:
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        with pytest.raises(VideoError, match="is no regular file"):
            VideoFile(tmp_path)
        VideoFile(media.clip("b.mkv")).close()
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "clip.mp4")
    script = (
        "import sys; from videoprism_mlx.video.ffmpeg.reader import VideoFile\n"
        "for partial in (False, True):\n"
        "    try: VideoFile(sys.argv[1], partial)\n"
        "    except ValueError as error: print(error)"
    )
    command = [sys.executable, "-c", script, tmp_path / "clip.mp4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.count("is no regular file") == 2
    with pytest.raises(VideoError, match="is no regular file"):
        VideoFile("/dev/null")


def test_a_stream_that_claims_gigantic_frames(tmp_path: Path) -> None:
    """The header of an AVI says 60,000 x 60,000: nothing of that size is made."""
    path = media.write(tmp_path / "clip.avi", 3, arguments=["-c:v", "rawvideo"])
    content = bytearray(path.read_bytes())
    for place in (content.find(b"avih") + 8 + 32, content.find(b"strf") + 8 + 4):
        content[place : place + 8] = (60_000).to_bytes(4, "little") * 2
    path.write_bytes(content)
    script = (
        "import resource, sys; from videoprism_mlx.video.ffmpeg.reader import VideoFile\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: VideoFile(sys.argv[1])\n"
        "except ValueError as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True)
    message, _, peak = done.stdout.strip().rpartition("\n")
    assert "no frame that can be decoded" in message, done.stderr
    assert int(peak) < 600_000


@pytest.mark.parametrize("name", ["streamable.mp4", "b.mkv", "mpeg4.avi", "av1.mp4"])
@pytest.mark.parametrize("bits", [3, 50])
def test_flipped_bits_are_seen(name: str, bits: int, tmp_path: Path) -> None:
    source = media.clip(name).read_bytes()
    start = max(source.find(b"mdat"), len(source) // 5) + 100
    seen = 0
    for seed in range(6):
        content, random = bytearray(source), np.random.RandomState(seed)
        for place in random.randint(start, len(content) - 200, bits):
            content[place] ^= 1 << random.randint(8)
        path = tmp_path / name
        path.write_bytes(content)
        try:
            assert len(vp.read_video(path, None, size=18)) == media.FRAMES
        except VideoError:
            seen += 1
    assert seen >= 4


def test_the_damaged_frame_is_named(tmp_path: Path) -> None:
    source = media.clip("streamable.mp4").read_bytes()
    path = tmp_path / "clip.mp4"
    content, random = bytearray(source), np.random.RandomState(0)
    content[random.randint(source.find(b"mdat") + 100, len(content) - 200)] ^= 16
    path.write_bytes(content)
    message = r"breaks off after (\d+) frames of 100 .*frame \1, at \d\.\d\d s, is damaged"
    with pytest.raises(VideoError, match=message):
        read(path)
    frames = vp.read_video(path, None, size=None, partial=True)
    assert 90 <= len(frames) < media.FRAMES


def test_a_transport_stream_without_its_end(tmp_path: Path) -> None:
    """There is no header that says how long it should be: what is there is read."""
    path = media.cut(media.clip("b.ts"), tmp_path / "b.ts", end=0.6)
    try:
        frames = read(path)
    except VideoError as error:
        assert "damaged" in str(error)
        frames = read(path, partial=True)
    assert 25 < len(frames) < 80
    assert frames[:-3] == list(range(len(frames) - 3))


def test_hdr_is_told_and_can_be_mapped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tags = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:range=limited"
    params = f"log-level=none:pools=1:{tags}"
    encoder = ["-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le"]
    path = media.write(tmp_path / "hdr.mkv", 3, arguments=[*encoder, "-x265-params", params])
    plain = vp.read_video(path, None, size=None)
    assert "HDR video (PQ)" in caplog.text and "--tone-map" in caplog.text
    expected = media.decode(path, *media.SIZE)
    assert np.abs(plain * 255 - expected).max() <= 1
    caplog.clear()
    mapped = vp.read_video(path, None, size=None, tone_map=True)
    assert not caplog.text
    assert mapped.shape == plain.shape
    assert np.abs(mapped - plain).mean() > 0.02
    # What is brighter stays brighter: grey levels keep their order.
    grey = plain.mean(axis=-1).ravel(), mapped.mean(axis=-1).ravel()
    assert np.corrcoef(*grey)[0, 1] > 0.9


def test_hardware_falls_back_to_software() -> None:
    plain = vp.read_video(media.clip("b.mp4"), 4, size=None)
    assert np.array_equal(plain, vp.read_video(media.clip("b.mp4"), 4, size=None, hardware="auto"))
    with pytest.raises(ValueError, match="hardware is 'on'; expected one of off, auto"):
        vp.read_video(media.clip("b.mp4"), 4, hardware="on")
