"""Writing .mp4 files."""

from pathlib import Path

import av
import media
import numpy as np
import pytest
from full_disk import largest_file

from videoprism_mlx.errors import InputError, VideoError
from videoprism_mlx.video.ffmpeg.reader import VideoFile
from videoprism_mlx.video.ffmpeg.write import write_video


def frames(count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    return [media.frame(number, width, height) for number in range(count)]


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", iter(frames(9, *media.SIZE)), fps=12.5)
    written = VideoFile(tmp_path / "clip.mp4")
    np.testing.assert_allclose(written.times, np.arange(9) / 12.5)
    for number, image in enumerate(written.fetch(range(9))):
        assert media.number(image) == number
        assert np.abs(image.astype(int) - media.frame(number)).mean() < 4
    written.close()


def test_browsers_can_play_it(tmp_path: Path) -> None:
    """H.264 with 4:2:0 colours, tagged BT.709, and the index before the frames."""
    write_video(tmp_path / "clip.mp4", frames(9), fps=8)
    container = av.open(str(tmp_path / "clip.mp4"))
    context = container.streams.video[0].codec_context
    assert (context.name, context.pix_fmt, context.profile) == ("h264", "yuv420p", "High")
    assert (context.colorspace, context.color_range) == (1, 1)
    container.close()
    content = (tmp_path / "clip.mp4").read_bytes()
    assert 0 < content.find(b"moov") < content.find(b"mdat")


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.mp4", "two.mp4"):
        write_video(tmp_path / name, frames(40, *media.SIZE), fps=8)
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "no frames to write"),
        ([*frames(2), frames(1, 32)[0]], "frame 2 is 32 x 48 pixels, unlike those before it: 64 x"),
        ([frames(1)[0].astype(np.float32)], r"frame 0 is float32 \(48, 64, 3\); expected uint8"),
        ([*frames(1), frames(1)[0][..., 0]], r"frame 1 is uint8 \(48, 64\); expected uint8 \(hei"),
        (frames(1, 63), "the frames are 63 x 48 pixels; expected an even width and height"),
    ],
)
def test_bad_frames(images: list[np.ndarray], message: str, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=message):
        write_video(tmp_path / "clip.mp4", images, 8)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), 1001, 0.0004])
def test_bad_frame_rates(fps: float, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a number above zero, 1000 at most"):
        write_video(tmp_path / "clip.mp4", frames(2), fps)
    assert not (tmp_path / "clip.mp4").exists()


def test_a_name_that_looks_like_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video("12:30.mp4", frames(3), np.float32(29.97))
    assert len(VideoFile("12:30.mp4").times) == 3


def test_a_file_stays_if_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"earlier")
    for images in ([], frames(1, 63), frames(1, 20_000, 2), [*frames(2), frames(1, 32)[0]]):
        with pytest.raises(VideoError):
            write_video(tmp_path / "clip.mp4", images, 8)
    assert (tmp_path / "clip.mp4").read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_bad_places(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"clip\.avi does not end in \.mp4"):
        write_video(tmp_path / "clip.avi", frames(2), 8)
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        write_video(tmp_path / "missing" / "clip.mp4", frames(2), 8)


def test_a_full_disk_is_noticed(tmp_path: Path) -> None:
    noise = np.random.RandomState(0).randint(0, 255, (60, 96, 128, 3)).astype(np.uint8)
    with largest_file(50_000), pytest.raises(OSError, match="make room or write elsewhere"):
        write_video(tmp_path / "clip.mp4", noise, 8)
