"""Moments as clips: which frames they hold, and their sound."""

from pathlib import Path

import av
import media
import pytest

import videoprism_mlx as vp
from videoprism_mlx.errors import VideoError
from videoprism_mlx.library.moment import Moment
from videoprism_mlx.library.search.cut import clip_name, cut, export


def streams(path: Path) -> dict[str, tuple[str, float]]:
    """The codec and length in seconds of the streams of a file."""
    with av.open(str(path)) as opened:
        return {
            one.type: (
                one.codec_context.codec.canonical_name,
                float((one.duration or 0) * one.time_base),
            )
            for one in opened.streams
        }


def numbers(path: Path) -> list[int]:
    """The numbers of its frames."""
    return media.numbers(vp.read_video(path, None, size=None))


@pytest.mark.parametrize(
    ("name", "start", "end", "copied", "first", "last"),
    [
        ("b.mp4", 0.0, 1.0, True, 0, 29),
        ("b.mp4", 1.6, 3.4, True, 48, 99),
        ("b.mp4", 1.7, 2.5, True, 48, 74),  # From a key frame 0.1 s before.
        ("open.mp4", 1.34, 2.0, True, 36, 59),
        ("late.mp4", 0.8, 2.0, True, None, 59),
        ("hevc.mp4", 0.0, 1.0, True, 0, 29),
        ("b.avi", 0.0, 1.0, True, 0, 29),  # Whose first frame is shown after the file's start.
        ("vp9.webm", 1.0, 2.0, False, 30, 59),
        ("refresh.mp4", 2.0, 3.0, False, 60, 89),  # Without key frames.
    ],
)
def test_the_frames_of_a_clip(
    name: str, start: float, end: float, copied: bool, first: int | None, last: int, tmp_path: Path
) -> None:
    output = tmp_path / "clip.mp4"
    assert cut(media.clip(name), start, end, output) == copied
    shown = numbers(output)
    whole = numbers(media.clip(name))
    begin = whole.index(first) if first is not None else whole.index(shown[0])
    assert shown[-1] == last or (copied and last < shown[-1] <= last + 3)
    if copied:
        assert shown == whole[begin : whole.index(shown[-1]) + 1]
        assert whole.index(shown[0]) <= round(30 * start) <= whole.index(shown[0]) + 15
    else:
        assert set(shown) == set(range(shown[0], last + 1)) and shown[0] == first


def test_a_clip_is_the_right_way_up_and_has_square_pixels(tmp_path: Path) -> None:
    for name, copied in (("turned90.mp4", True), ("wide.mp4", False)):
        source = media.clip(name)
        assert cut(source, 0.0 if copied else 1.0, 2.0, tmp_path / name) == copied
        shown = vp.read_video(tmp_path / name, 1, size=None)[0].shape[:2]
        height, width = vp.read_video(source, 1, size=None)[0].shape[:2]
        assert shown == (height, width if copied else 2 * width)


@pytest.mark.parametrize(
    ("codec", "kept"), [("aac", "aac"), ("libmp3lame", "mp3"), ("pcm_s16le", "aac")]
)
def test_sound_comes_along(codec: str, kept: str, tmp_path: Path) -> None:
    """Of a tone that begins after 2 s: it is silent before and loud after."""
    tone = ["-f", "lavfi", "-i", "aevalsrc='if(gte(t,2),sin(2000*t),0)':d=4"]
    source = media.write(
        tmp_path / "in.mkv", 100, inputs=tone, arguments=[*media.X264, "-c:a", codec, "-shortest"]
    )
    for start, end in ((0.0, 1.5), (1.0, 3.0)):
        output = tmp_path / "out.mp4"
        is_copied = cut(source, start, end, output)
        assert is_copied == (start == 0.0)
        found = streams(output)
        assert found["audio"] == (kept, pytest.approx(end - start, abs=0.1))
        assert found["video"][1] == pytest.approx(end - start, abs=0.1)
        samples = media.ffmpeg("-i", output, "-ac", "1", "-f", "f32le", "-")
        import numpy as np

        sound = np.abs(np.frombuffer(samples, np.float32))
        rate = len(sound) / (end - start)
        assert sound[: int(0.8 * rate)].max() < 0.05
        if start == 1.0:
            assert sound[int(1.2 * rate) : int(1.8 * rate)].max() > 0.5


def moment(path: Path, start: float, end: float) -> Moment:
    return Moment(path.name, str(path), start, end, 0.5, "id", 0)


def test_the_clips_of_moments(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "clip.mp4").write_bytes(media.clip("b.mp4").read_bytes())
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\0" * 1000)
    moments = [
        moment(tmp_path / "a" / "clip.mp4", 0, 1),
        moment(tmp_path / "b" / "clip.mp4", 0, 1),
        moment(broken, 0, 1),
        moment(tmp_path / "gone.mp4", 0, 1),
    ]
    made = export(moments, tmp_path / "out")
    assert [one.error is None for one in made] == [True, True, False, False]
    assert isinstance(made[2].error, VideoError) and isinstance(made[3].error, FileNotFoundError)
    names = ["clip 0m00.0s-0m01.0s (2).mp4", "clip 0m00.0s-0m01.0s.mp4"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    before = {name: (tmp_path / "out" / name).read_bytes() for name in names}
    export(moments, tmp_path / "out")
    assert {name: (tmp_path / "out" / name).read_bytes() for name in names} == before


def test_names_of_clips() -> None:
    def name(video: str) -> str:
        return clip_name(Moment(video, video, 59.96, 3661.5, 0, "", 0))

    assert name("wave.MP4") == "wave 1m00.0s-61m01.5s.mp4"
    assert name('.a:b"\n.mp4') == "a_b__ 1m00.0s-61m01.5s.mp4"
    assert len(name("ü" * 200 + ".mp4").encode()) < 255
