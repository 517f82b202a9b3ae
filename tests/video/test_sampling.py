"""Which frames of a video are taken."""

import time
from typing import Any

import cv2
import media
import numpy as np
import pytest

from videoprism_mlx.video import reader as videofile
from videoprism_mlx.video import sampling as video
from videoprism_mlx.video.sampling import read_video


def numbers(source: Any, num_frames: int | None = None, **options: Any) -> list[int]:
    """The numbers of the frames that are read, in full size."""
    return media.numbers(read_video(source, num_frames, size=None, **options))


def frames(count: int) -> np.ndarray:
    """The first frames, (count, H, W, 3)."""
    return np.stack([media.frame(n) for n in range(count)])


UNEVEN = ["uneven.mp4", "uneven.mkv", "uneven.avi"]


@pytest.mark.parametrize("name", UNEVEN)
@pytest.mark.parametrize("fps", [1, 2.5, 10, 30, 48])
def test_a_rate_takes_what_is_on_display(name: str, fps: float) -> None:
    instants = np.arange(np.ceil(media.FRAMES / media.FPS * fps - 1e-2)) / fps
    kept = np.array(media.UNEVEN_FRAMES)
    shown = [int(kept[kept <= instant * media.FPS + 1e-2].max()) for instant in instants]
    path = media.clip(name)
    assert numbers(path, fps=fps) == shown
    assert numbers(path, 3, fps=fps) == shown[:3]
    later = [
        int(kept[kept <= (1 + instant) * media.FPS + 1e-2].max())
        for instant in np.arange(np.ceil(fps - 1e-2)) / fps
    ]
    assert numbers(path, fps=fps, start=1, end=2) == later


@pytest.mark.parametrize("name", UNEVEN)
@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 0.5), (0.5, 2), (1, 1.4), (2, None), (None, 1), (3.3, 9 / 2.7), (0, 3.33)],
)
def test_a_span_takes_what_begins_in_it(name: str, start: float | None, end: float | None) -> None:
    first, stop = (start or 0) * media.FPS - 1e-2, (9 if end is None else end) * media.FPS - 1e-2
    inside = [n for n in media.UNEVEN_FRAMES if first <= n < stop]
    path = media.clip(name)
    assert numbers(path, start=start, end=end) == inside
    chosen = np.linspace(0, len(inside), 16, endpoint=False).astype(int)
    assert numbers(path, 16, start=start, end=end) == [inside[n] for n in chosen]


@pytest.mark.parametrize("count", [1, 2, 7, 15, 16, 17, 33, 100])
def test_samples_are_those_of_the_demos(count: int) -> None:
    expected = np.linspace(0, count, 16, endpoint=False).astype(int).tolist()
    assert numbers(frames(count), 16) == expected
    assert read_video(frames(count), size=8).shape == (16, 8, 8, 3)


def test_when_frames_are_shown() -> None:
    _, times = video.sample(media.clip("b.mp4"), lambda image, aspect: None, 4, start=1, end=2)
    assert np.allclose(times, [30 / 30, 37 / 30, 45 / 30, 52 / 30], atol=1e-3)
    _, times = video.sample(frames(10), lambda image, aspect: None, 5, frame_rate=5)
    assert np.allclose(times, [0, 0.4, 0.8, 1.2, 1.6])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(start=4), ValueError, r"from 4 s to the end is outside.*3\.33 s long"),
        (dict(start=100, end=101), ValueError, r"from 100 s to 101 s is outside.*3\.33 s long"),
        (dict(end=3.5), ValueError, r"from 0 s to 3\.5 s is outside.*3\.33 s long"),
        (dict(start=2, end=1), ValueError, "from 2 to 1 s is empty"),
        (dict(start=1, end=1), ValueError, "from 1 to 1 s is empty"),
        (dict(start=-1), ValueError, "start is -1"),
        (dict(end=-1), ValueError, "end is -1"),
        (dict(start=np.nan), ValueError, "start is nan"),
        (dict(end=np.nan), ValueError, "end is nan"),
        (dict(end=np.inf), ValueError, "end is inf"),
        (dict(start=0.7, end=1.3), ValueError, r"no frame of .* between 0\.7 and 1\.3 s.*widen"),
        (dict(num_frames=0), ValueError, "num_frames is 0; expected 1 or more"),
        (dict(num_frames=-16), ValueError, "num_frames is -16"),
        (dict(num_frames=1.5), TypeError, "float"),
        (dict(fps=0), ValueError, "fps is 0; expected frames a second"),
        (dict(fps=-1), ValueError, "fps is -1"),
        (dict(fps=np.nan), ValueError, "fps is nan"),
        (dict(size=0), ValueError, "size is 0; expected 1 to"),
        (dict(size=-288), ValueError, "size is -288"),
        (dict(size=10**6), ValueError, "size is 1000000"),
        (dict(resize="squash"), ValueError, "resize is 'squash'; expected one of stretch, crop"),
        (dict(resample="cubic"), ValueError, "resample is 'cubic'; expected one of area, lanczos"),
        (dict(frame_rate=25), ValueError, "has a frame rate of its own"),
    ],
)
def test_bad_wishes(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_video(media.clip("uneven.mp4"), **options)


def test_few_images_wait_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, done, waiting = [], [], []
    real = cv2.cvtColor
    monkeypatch.setattr(videofile.cv2, "cvtColor", lambda *a: decoded.append(1) or real(*a))

    def prepare(image: np.ndarray, aspect: float) -> None:
        time.sleep(0.002)
        waiting.append(len(decoded) - len(done))
        done.append(1)

    video.sample(media.clip("b.mp4"), prepare, None)
    assert len(done) == media.FRAMES
    assert max(waiting) <= video.BACKLOG + 3


def test_so_many_frames_are_a_mistake() -> None:
    for options in (dict(fps=1e14), dict(num_frames=10**13)):
        with pytest.raises(ValueError, match=r"that would be [\d,]+ frames; expected at most"):
            read_video(media.clip("b.mp4"), **{"num_frames": None, **options})
