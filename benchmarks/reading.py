"""What reading a video costs, beside a bare PyAV loop and OpenCV.

    python -m benchmarks.reading [--video CLIP] [--hardware] [--save]

Draws clips and an hour of video with FFmpeg (a test dependency), unless a clip is given. With
`--hardware` it says whether the machine's own decoder gives the same frames, and how fast it is.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # It prints a line for each frame of AV1.

import av
import cv2
import imageio_ffmpeg
import numpy as np
import numpy.typing as npt

import videoprism_mlx as vp
from benchmarks.timing import in_turns, ratios, save
from videoprism_mlx.video.ffmpeg.opening import open_stream
from videoprism_mlx.video.ffmpeg.reader import VideoFile

Pixels = npt.NDArray[Any]
Prepare = Callable[[Pixels], Pixels | None]

# The most that ours may take, as a multiple of the other: of a bare PyAV loop, of OpenCV, of bare
# seeks in an hour, and of the first ten seconds.
ALLOWED_BARE, ALLOWED_OPENCV, ALLOWED_SEEKS, ALLOWED_LAST = 1.1, 1.0, 1.5, 1.5
HOUR, MINUTE = 3600, 60
FRAMES = 300  # of ten seconds
SIZES = ("640x360", "1920x1080")
SOURCE = "testsrc2=size={}:rate=30:duration={},noise=alls=6:allf=t"

# Codecs with settings that draw clips in a reasonable time, and B-frames where there are any.
CODECS = {
    "H.264": ["-c:v", "libx264", "-preset", "veryfast", "-bf", "3"],
    "HEVC": ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none"],
    "VP9": ["-c:v", "libvpx-vp9", "-cpu-used", "8", "-deadline", "realtime", "-b:v", "2M"],
    "AV1": ["-c:v", "libsvtav1", "-preset", "12"],
}


def draw(path: Path, codec: str, size: str, seconds: int, pixels: str = "yuv420p") -> Path:
    """A test card with noise."""
    source = ["-f", "lavfi", "-i", SOURCE.format(size, seconds)]
    run_ffmpeg(*source, *CODECS[codec], "-pix_fmt", pixels, path)
    return path


def draw_hour(path: Path, size: str) -> Path:
    """An hour of H.264, with the usual distance of key frames: a minute, repeated."""
    minute = draw(path.with_name("minute.mp4"), "H.264", size, MINUTE)
    run_ffmpeg("-stream_loop", str(HOUR // MINUTE - 1), "-i", minute, "-c", "copy", path)
    return path


def run_ffmpeg(*arguments: str | Path) -> None:
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    quiet = {**os.environ, "SVT_LOG": "0"}
    subprocess.run([ffmpeg, "-y", "-v", "error", *map(str, arguments)], check=True, env=quiet)


def chosen(count: int) -> set[int]:
    """The numbers of 16 frames, as the official demos choose them."""
    return set(np.linspace(0, count, 16, endpoint=False).astype(int).tolist())


def by_pyav(path: Path, prepare: Prepare) -> None:
    """Decodes every frame, and makes RGB of the 16 that are read."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        wanted = chosen(stream.frames or FRAMES)
        made = [
            prepare(frame.to_ndarray(format="rgb24"))
            for number, frame in enumerate(container.decode(stream))
            if number in wanted
        ]
    assert len(made) == 16


def by_opencv(path: Path, prepare: Prepare) -> None:
    """The same, as most scripts do it."""
    capture = cv2.VideoCapture(str(path))
    wanted = chosen(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    number, made = 0, []
    while capture.grab():
        if number in wanted:
            made.append(prepare(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB)))
        number += 1
    assert len(made) == 16


def by_us(path: Path, prepare: Prepare) -> None:
    """The same 16 frames, and each compared with the index."""
    file = VideoFile(path)
    made = [
        prepare(frame)
        for frame in file.consistently(lambda: file.fetch(sorted(chosen(len(file.times)))))
    ]
    file.finish()
    file.close()
    assert len(made) == 16


def drop(frame: Pixels) -> None:
    """The frame is all that is wanted."""


def resize(frame: Pixels) -> Pixels:
    """The frame as a model takes it."""
    small = cv2.resize(frame, (288, 288), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / np.float32(255)


def read(path: Path, **options: Any) -> None:
    """16 frames as a model takes them."""
    vp.read_video(path, **options)


def by_seeks(path: Path, clocks: list[int]) -> None:
    """A seek to the key frame before each clock, and decoding from there."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for clock in clocks:
            container.seek(clock, stream=stream)
            for frame in container.decode(stream):
                if frame.pts is not None and frame.pts >= clock:
                    frame.to_ndarray(format="rgb24")
                    break


def peak_megabytes(path: Path) -> float:
    """The memory of a process that reads 16 frames of a video."""
    script = (
        "import resource, sys, videoprism_mlx as vp; vp.read_video(sys.argv[1])\n"
        "try: print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
        "except OSError: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, check=True)
    return int(done.stdout) / 2**10


class Report:
    """The figures, and whether all are as allowed."""

    def __init__(self, rounds: int):
        self.rounds = rounds
        self.figures: dict[str, Any] = {}
        self.within = True

    def compare(
        self, name: str, work: dict[str, Callable[[], None]], allowed: dict[str, float]
    ) -> None:
        """Times the work in turns: "ours", and others with the ratios that are allowed."""
        seconds = in_turns(work, self.rounds)
        for other, most in allowed.items():
            figures = {**ratios(seconds, "ours", other), "allowed": most}
            self.figures[f"{name}, to {other}"] = figures
            self.within &= figures["median"] <= most
            values = ", ".join(f"{key} {value:.2f}" for key, value in figures.items())
            print(f"{name}, to {other}: {values}", flush=True)


def measure_clips(report: Report, folder: Path, given: Path | None) -> None:
    """16 frames of ten seconds, for each codec and size: the frames, and a model's input."""
    clips = {"your clip": given} if given else {}
    for codec in () if given else CODECS:
        for size in SIZES:
            path = folder / f"{codec}_{size}.{'webm' if codec == 'VP9' else 'mp4'}"
            clips[f"{codec}, {size}"] = draw(path, codec, size, 10)
    for name, path in clips.items():
        has_opencv = cv2.VideoCapture(str(path)).read()[0]  # Some wheels cannot decode AV1.
        works: list[tuple[str, Callable[[], None], Prepare]] = [
            ("frames", partial(by_us, path, drop), drop),
            ("input", partial(read, path), resize),
        ]
        for product, ours, prepare in works:
            work = {"ours": ours, "bare PyAV": partial(by_pyav, path, prepare)}
            allowed = {"bare PyAV": ALLOWED_BARE}
            if has_opencv:
                work["OpenCV"], allowed["OpenCV"] = (
                    partial(by_opencv, path, prepare),
                    ALLOWED_OPENCV,
                )
            report.compare(f"{product} of 10 s, {name}", work, allowed)


def measure_hour(report: Report, folder: Path, size: str) -> None:
    """16 frames over an hour, its last seconds, and memory."""
    path = draw_hour(folder / "hour.mp4", size)
    file = VideoFile(path)
    numbers = np.linspace(0, len(file.times), 16, endpoint=False).astype(int)
    clocks = [int(clock) for clock in file._index.clocks[numbers]]
    file.close()
    work = {"ours": partial(read, path), "seeks": partial(by_seeks, path, clocks)}
    report.compare(f"16 frames of an hour, {size}", work, {"seeks": ALLOWED_SEEKS})
    work = {
        "ours": partial(read, path, start=HOUR - 10, end=HOUR - 1),
        "the first": partial(read, path, start=0, end=9),
    }
    report.compare(f"the last 10 s of an hour, {size}", work, {"the first": ALLOWED_LAST})
    short, long = peak_megabytes(path.with_name("minute.mp4")), peak_megabytes(path)
    report.figures[f"megabytes, {size}"] = {"a minute": short, "an hour": long}
    print(f"memory, {size}: a minute {short:.0f} MB, an hour {long:.0f} MB")


def decoded_by_chip(path: Path) -> bool:
    """Whether the machine's own decoder decodes a file, and not software in its place."""
    with closing(open_stream(path, vp.Decoding(hardware="auto"))) as opened:
        next(opened.container.decode(opened.stream))
        return bool(opened.stream.codec_context.is_hwaccel)


def measure_hardware(folder: Path) -> None:
    """Whether the machine's decoder gives the frames of the software decoder."""
    for codec, pixels in [*((codec, "yuv420p") for codec in CODECS), ("HEVC", "yuv420p10le")]:
        name = f"{codec}, {pixels}"
        path = draw(folder / f"{codec}_{pixels}.mp4", codec, SIZES[1], 3, pixels)
        if not decoded_by_chip(path):
            print(f"{name}: decoded in software, this machine has no decoder for it")
            continue
        plain, fast = (
            vp.read_video(path, None, size=None, hardware=hardware) for hardware in ("off", "auto")
        )
        largest = float(np.abs(plain - fast).max() * 255)
        same = (
            "the same frames"
            if largest == 0
            else f"frames that differ by up to {largest:.0f} of 255"
        )
        work = {key: partial(read, path, hardware=key) for key in ("auto", "off")}
        found = ratios(in_turns(work, 5), "auto", "off")["median"]
        print(f"{name}: the machine's decoder gives {same}, in {found:.2f} of the time")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--video", type=Path, help="a short clip of your own")
    parser.add_argument("--rounds", type=int, default=5, help="measured turns")
    parser.add_argument("--hour", default=SIZES[0], help="size of the hour (default: %(default)s)")
    parser.add_argument("--hardware", action="store_true", help="compare the machine's decoder")
    parser.add_argument("--save", action="store_true", help="keep the figures")
    options = parser.parse_args()
    report = Report(options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        if options.hardware:
            measure_hardware(Path(folder))
            return 0
        measure_clips(report, Path(folder), options.video)
        measure_hour(report, Path(folder), options.hour)
    if options.save:
        save("reading", "python -m benchmarks.reading", report.figures)
    return 0 if report.within else 1


if __name__ == "__main__":
    sys.exit(main())
