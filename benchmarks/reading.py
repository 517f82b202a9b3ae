"""The cost of reading a video, compared with OpenCV alone.

    python -m benchmarks.reading [--video CLIP] [--save]

Without --video it draws clips of 10 s. An hour of video is drawn in any case. That needs FFmpeg,
which comes with the test dependencies.
"""

import argparse
import functools
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import imageio_ffmpeg

import videoprism_mlx as vp
from benchmarks.timing import in_turns, ratios, save

# The allowed cost of 16 frames, relative to a bare pass; and of a window at the end of a long
# video, relative to one at the start.
ALLOWED_PASS, ALLOWED_SEEK = 1.2, 2.0
HOUR = 3600
SIZES = ("640x360", "1920x1080")


def draw(path: Path, seconds: int, size: str) -> None:
    """Draws an H.264 video with B-frames and the usual distance between key frames."""
    pattern = f"testsrc2=size={size}:rate=30:duration={seconds}"
    encoder = ["-c:v", "libx264", "-preset", "veryfast", "-bf", "3", "-pix_fmt", "yuv420p"]
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    command = [ffmpeg, "-v", "error", "-f", "lavfi", "-i", pattern, *encoder, str(path)]
    subprocess.run(command, check=True)


def bare_pass(path: Path) -> None:
    """Reads every frame, as most scripts do."""
    capture = cv2.VideoCapture(str(path))
    while capture.read()[0]:
        pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--video", type=Path, help="a short clip of your own")
    parser.add_argument("--rounds", type=int, default=5, help="measured turns")
    parser.add_argument(
        "--save", action="store_true", help="write the figures to benchmarks/results"
    )
    options = parser.parse_args()

    figures, within = {}, True

    def compare(
        name: str, seconds: dict[str, list[float]], this: str, to: str, most: float
    ) -> None:
        nonlocal within
        figures[name] = {**ratios(seconds, this, to), "allowed": most}
        within &= figures[name]["median"] <= most
        values = ", ".join(f"{key} {value:.2f}" for key, value in figures[name].items())
        print(f"{name}: {values}")

    with tempfile.TemporaryDirectory() as folder:
        clips = {"your clip": options.video}
        if options.video is None:
            clips = {f"10 s, {size}": Path(folder) / f"{size}.mp4" for size in SIZES}
            for size, path in zip(SIZES, clips.values(), strict=True):
                draw(path, 10, size)
        for name, path in clips.items():
            passes: dict[str, Callable[[], object]] = {
                "ours": functools.partial(vp.read_video, path),
                "bare": functools.partial(bare_pass, path),
            }
            seconds = in_turns(passes, options.rounds)
            compare(f"16 frames of {name}, to a bare pass", seconds, "ours", "bare", ALLOWED_PASS)

        hour = Path(folder) / "hour.mp4"
        draw(hour, HOUR, "160x120")
        work = {
            "first": lambda: vp.read_video(hour, start=0, end=10),
            "last": lambda: vp.read_video(hour, start=HOUR - 10, end=HOUR),
        }
        seconds = in_turns(work, options.rounds)
        compare("the last 10 s of an hour, to the first", seconds, "last", "first", ALLOWED_SEEK)
    if options.save:
        save("reading", "python -m benchmarks.reading", figures)
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
