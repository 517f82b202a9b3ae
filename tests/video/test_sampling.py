"""Which frames of a video are taken."""

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import media
import numpy as np
import pytest

from videoprism_mlx.errors import InputError, InputTypeError, VideoError
from videoprism_mlx.video import sampling
from videoprism_mlx.video.ffmpeg.colours import Converter
from videoprism_mlx.video.sampling import read_video
from videoprism_mlx.video.source import open_source


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
    _, times = sampling.sample(media.clip("b.mp4"), lambda image, aspect: None, 4, start=1, end=2)
    assert np.allclose(times, [30 / 30, 37 / 30, 45 / 30, 52 / 30], atol=1e-3)
    _, times = sampling.sample(frames(10), lambda image, aspect: None, 5, frame_rate=5)
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
        (dict(num_frames="16"), InputTypeError, "num_frames is '16', a str; expected a whole"),
        (dict(num_frames=1.5), InputTypeError, r"num_frames is 1\.5, a float; expected a whole"),
        (dict(start="1"), InputTypeError, "start is '1', a str; expected seconds"),
        (dict(end="1"), InputTypeError, "end is '1', a str; expected seconds"),
        (dict(fps="5"), InputTypeError, "fps is '5', a str; expected frames a second"),
        (dict(frame_rate="5"), InputTypeError, "frame_rate is '5', a str; expected frames"),
        (dict(size=18.5), InputTypeError, r"size is 18\.5, a float; expected a whole number"),
        (dict(size="18"), InputTypeError, "size is '18', a str; expected a whole number"),
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
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_video(media.clip("uneven.mp4"), **options)


def test_few_images_wait_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, done, waiting = [], [], []
    real = Converter.__call__
    monkeypatch.setattr(Converter, "__call__", lambda *a: decoded.append(1) or real(*a))

    def prepare(image: np.ndarray, aspect: float) -> None:
        time.sleep(0.002)
        waiting.append(len(decoded) - len(done))
        done.append(1)

    sampling.sample(media.clip("b.mp4"), prepare, None)
    assert len(done) == media.FRAMES
    assert max(waiting) <= sampling.BACKLOG + 3


def test_so_many_frames_are_a_mistake() -> None:
    for options in (dict(fps=1e14), dict(num_frames=10**13), dict(num_frames=10**400)):
        with pytest.raises(ValueError, match=r"that would be [\d,]+ frames; expected at most"):
            read_video(media.clip("b.mp4"), **{"num_frames": None, **options})


def test_a_rate_beyond_all_numbers() -> None:
    with pytest.raises(InputError, match="that would be inf frames; expected at most"):
        read_video(media.clip("b.mp4"), None, fps=1e308)
    assert numbers(media.clip("b.mp4"), 2, fps=1e308) == [0, 0]


def test_reading_begins_anew_when_the_frames_are_counted_anew() -> None:
    opened = open_source(media.clip("damaged.mp4"), partial=True)
    counts = []

    def produce() -> Iterator[int]:
        counts.append(len(opened.times))
        yield from range(3)
        for _ in opened.fetch(range(len(opened.times))):
            pass
        yield 3

    assert list(opened.consistently(produce)) == [0, 1, 2, 0, 1, 2, 3]
    assert counts == [media.FRAMES, len(opened.times)]
    assert 80 < len(opened.times) < media.FRAMES
    opened.close()


def test_images_and_arrays_are_read_once() -> None:
    opened = open_source(frames(4))
    calls = []

    def produce() -> Iterator[int]:
        calls.append(1)
        yield from map(media.number, opened.fetch([0, 2, 3]))

    assert list(opened.consistently(produce)) == [0, 2, 3]
    assert len(calls) == 1


def test_frames_that_do_not_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise MemoryError("Unable to allocate 183 TiB")

    monkeypatch.setattr(sampling.np, "stack", refuse)
    expected = r"4 frames of shape \(18, 18, 3\) are too many: .*memory \(Unable to allocate 183"
    with pytest.raises(VideoError, match=expected):
        read_video(media.clip("two.mp4"), 4, size=18)


def test_reading_imports_no_mlx() -> None:
    read = (
        "import sys, numpy, videoprism_mlx as vp\n"
        "vp.read_video(sys.argv[1], 2, size=18)\n"
        "vp.read_video(numpy.zeros((2, 8, 8, 3), numpy.uint8), 2, size=18)\n"
        "vp.find_videos([sys.argv[1]]), vp.read_captions, vp.read_labels\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'mlx'])"
    )
    command = [sys.executable, "-c", read, str(media.clip("two.mp4"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("module", "name", "remedy"),
    [("cv2", "OpenCV", "'opencv-python"), ("av", "PyAV", "pip install 'av>=17'")],
)
def test_a_missing_library(module: str, name: str, remedy: str) -> None:
    read = (
        "import sys, videoprism_mlx as vp\n"
        "sys.modules[sys.argv[1]] = None\n"
        "try: vp.read_video('clip.mp4')\n"
        "except vp.VideoPrismError as error: print(type(error).__name__, error)"
    )
    command = [sys.executable, "-c", read, module]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"MissingLibraryError {name} cannot be imported")
    assert remedy in done.stdout
