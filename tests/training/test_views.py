"""Views of training videos: which span and which square they show."""

import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any

import media
import numpy as np
import pytest

import videoprism_mlx as vp
from videoprism_mlx.features.processor import Processor
from videoprism_mlx.training.views import PLAIN, Views

pytest_plugins = ["classifier_fixtures"]
pytestmark = pytest.mark.usefixtures("without_pictures")


def processor_of(directory: Path, **settings: Any) -> Processor:
    """The processor of a model, with other settings."""
    return dataclasses.replace(vp.load(directory)[1], **settings)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A clip. Random views depend on its name and that of its folder."""
    path = tmp_path / "clips" / "b.mp4"
    path.parent.mkdir()
    path.symlink_to(media.clip("b.mp4"))
    return path


def test_views_show_a_span_of_the_video(backbone: Path, video: Path) -> None:
    processor = processor_of(backbone, num_frames=8, size=96)
    views = Views(12, crop=1.0, span=0.4)
    spans = []
    for clip in views.read(processor, video)[1:]:
        numbers = [media.number(frame) for frame in clip]
        steps = np.diff(numbers)
        assert (steps >= 4).all() and np.ptp(steps) <= 1  # Evenly, over 40 of 100 or more.
        spans.append((numbers[0], numbers[-1] + int(steps.max())))
    lengths = [end - start for start, end in spans]
    assert min(start for start, _ in spans) >= 0 and max(end for _, end in spans) <= 102
    assert min(lengths) >= 32 and max(lengths) - min(lengths) > 15
    assert len({start for start, _ in spans}) > 6


def test_views_show_a_square_of_the_frames(backbone: Path, tmp_path: Path) -> None:
    """Of frames that are brighter to the right and greener to the bottom."""
    ramp = np.linspace(0, 255, 96)
    image = np.zeros((96, 96, 3))
    image[..., 0], image[..., 1] = ramp[None], ramp[:, None]
    path = tmp_path / "ramp.mkv"
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "96x96", "-r", "8", "-i", "-"]
    pixels = np.repeat(image[None].astype(np.uint8), 4, axis=0)
    media.ffmpeg(*raw, "-c:v", "ffv1", "-pix_fmt", "gbrp", path, given=pixels.tobytes())
    processor = processor_of(backbone, size=48)
    plain, *others = Views(9, crop=0.5, span=1.0).read(processor, path)
    assert np.ptp(plain[..., 0]) > 0.95
    corners = []
    for clip in others:
        assert clip.shape == plain.shape
        np.testing.assert_array_equal(clip[0], clip[-1])  # All frames alike.
        across, down = (np.ptp(clip[0, ..., channel]) for channel in (0, 1))
        assert 0.46 < across < 1 and across == pytest.approx(down, abs=0.03)
        corners.append((clip[0, 0, 0, 0], clip[0, 0, 0, 1]))
        assert corners[-1][0] + across <= 1.001 and corners[-1][1] + down <= 1.001
    assert np.ptp(np.array(corners), axis=0).min() > 0.1


def test_views_follow_the_seed_and_the_name(backbone: Path, video: Path, tmp_path: Path) -> None:
    processor = processor_of(backbone)
    elsewhere = tmp_path / "moved" / video.parent.name
    elsewhere.mkdir(parents=True)
    copy = Path(shutil.copy(video, elsewhere / "b.mp4"))
    other = Path(shutil.copy(video, tmp_path / "other.mp4"))
    one, same, fewer = (Views(n).read(processor, v) for v, n in ((video, 3), (copy, 3), (copy, 2)))
    np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(one[:2], fewer)
    for different in (Views(3).read(processor, other), Views(3, seed=1).read(processor, video)):
        np.testing.assert_array_equal(one[0], different[0])
        assert np.abs(one[1] - different[1]).max() > 0.05
        assert np.abs(one[2] - different[2]).max() > 0.05


@pytest.mark.parametrize("name", ["one.mp4", "two.mp4", "raw.h264", "hidden.webm", "uneven.mkv"])
def test_views_of_odd_videos(name: str, backbone: Path, tmp_path: Path) -> None:
    processor = processor_of(backbone)
    clips = Views(8, span=0.1).read(processor, media.clip(name))
    assert {clip.shape for clip in clips} == {(4, 18, 18, 3)}


def test_views_of_images(backbone: Path, clips: Path, tmp_path: Path) -> None:
    from PIL import Image

    images = []
    for number in range(3):
        images.append(tmp_path / f"{number}.png")
        Image.new("RGB", (20, 20), (80 * number, 0, 0)).save(images[-1])
    processor = processor_of(backbone)
    for video in (tuple(images), tuple(images[:1]), images[0], tmp_path):
        assert len(Views(4, span=0.3).read(processor, video)) == 4


def test_frames_at_a_rate(backbone: Path, video: Path) -> None:
    processor = processor_of(backbone, fps=5.0, size=96)
    firsts = set()
    for clip in Views(8, crop=1.0).read(processor, video):
        numbers = [media.number(frame) for frame in clip]
        assert np.diff(numbers).tolist() == pytest.approx([6, 6, 6], abs=1)  # 30 are shown.
        firsts.add(numbers[0])
    assert 0 in firsts and len(firsts) > 4 and max(firsts) > 40
    slow = processor_of(backbone, fps=0.5)
    with pytest.raises(vp.VideoError, match=r"has 2 frames at 0.5 a second; expected 4"):
        PLAIN.read(slow, video)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(count=0), "views is 0; expected 1 or more"),
        (dict(crop=0), "crop is 0; expected a share, up to 1"),
        (dict(span=1.5), "span is 1.5"),
        (dict(span=math.nan), "span is nan"),
    ],
)
def test_bad_views(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Views(**settings)
