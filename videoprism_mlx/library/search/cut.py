"""Moments as clips of their own.

A clip is copied from its video, without loss, where a key frame is just before its start and an MP4
file can hold the codec. Otherwise it is encoded anew, as H.264. Sound comes along.
"""

import dataclasses
import errno
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.audio.resampler import AudioResampler
from av.container import OutputContainer
from av.video.frame import PictureType

from videoprism_mlx.errors import EXPECTED
from videoprism_mlx.files.atomic import new_file, short_name
from videoprism_mlx.library.moment import Moment
from videoprism_mlx.progress import bar
from videoprism_mlx.video.failures import DAMAGE, reason
from videoprism_mlx.video.ffmpeg.opening import Opened, open_stream
from videoprism_mlx.video.ffmpeg.write import CONTAINER, HIGHEST_FPS, write_video
from videoprism_mlx.video.find import local_path
from videoprism_mlx.video.sampling import choose_frames
from videoprism_mlx.video.source import open_source

# The codecs that are copied into an MP4 file, and what other sound is encoded as.
COPIED_VIDEO, COPIED_SOUND, SOUND = ("h264", "hevc", "av1", "mpeg4"), ("aac", "mp3"), "aac"

# How many seconds before the start a key frame is close enough.
CLOSE = 0.5

# How many bytes a name may have, before the times.
LONGEST_NAME = 180


@dataclasses.dataclass(frozen=True)
class Clip:
    """A moment as a file, or the error that making it raised."""

    moment: Moment
    path: Path
    error: Exception | None = None


def export(moments: Sequence[Moment], directory: str | Path) -> list[Clip]:
    """Writes each moment as an .mp4 file into a folder, which is made if it is missing.

    A clip is named after its video and times, and replaces an earlier one of that name. A video
    that cannot be read gives a Clip with its error.
    """
    folder = Path(directory)
    clips: list[Clip] = []
    owners: dict[str, Moment] = {}
    folder.mkdir(parents=True, exist_ok=True)
    for moment in bar(moments, "clips", "clip"):
        name = clip_name(moment)
        if owners.setdefault(name.lower(), moment) is not moment:  # Of another folder.
            name = f"{name.removesuffix('.mp4')} ({len(clips) + 1}).mp4"
        error = None
        try:
            cut(moment.path, moment.start, moment.end, folder / name)
        except EXPECTED as raised:
            error = raised
        clips.append(Clip(moment, folder / name, error))
    return clips


def clip_name(moment: Moment) -> str:
    """The name of a moment's clip, such as `wave 0m12.0s-0m16.0s.mp4`."""
    stem = re.sub(r"[\x00-\x1f/\\:*?\"<>|]", "_", Path(moment.video).stem).lstrip(".") or "clip"
    first, last = (
        f"{int(tenths) // 600}m{tenths % 600 / 10:04.1f}s"
        for tenths in (round(10 * moment.start), round(10 * moment.end))
    )
    return f"{short_name(stem, LONGEST_NAME)} {first}-{last}.mp4"


def cut(video: str | Path, start: float, end: float, output: str | Path) -> bool:
    """Writes the span of a video from `start` to `end` seconds as an .mp4 file, with its sound.

    The file appears when it is complete, and replaces an earlier one. Returns whether the pictures
    were copied; then the clip may begin up to half a second before `start`.
    """
    path = local_path(video)
    with ExitStack() as stack:
        opened = stack.enter_context(closing(open_stream(path)))
        zero = origin(opened)
        try:
            first = key_frame(opened, zero + start)
        except DAMAGE:  # Reading frame by frame goes around it, or says what is wrong.
            first = None
        pictures: Opened = opened
        if first is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="videoprism_mlx-"))
            encoded = Path(folder) / "pictures.mp4"
            encode(path, start, end, encoded)
            pictures = stack.enter_context(closing(open_stream(encoded)))
        try:
            with (
                new_file(Path(os.path.abspath(output)), replace=True) as unfinished,
                open(unfinished, "wb") as file,
                av.open(file, "w", "mp4", container_options=CONTAINER) as made,
            ):
                if first is None:
                    join(made, pictures, origin(pictures), end - start, opened, zero + start)
                else:
                    join(made, pictures, first, zero + end - first, opened, first)
        except DAMAGE as error:
            said = reason(error) if isinstance(error, av.FFmpegError) else str(error)
            message = f"cannot be cut out of {path} ({said})"
            raise OSError(errno.EIO, message, str(output)) from error
    return first is not None


def origin(opened: Opened) -> float:
    """The time of the first frame, from which the reader counts, on the clock of the file.

    The file's own word is the time of the first packet, which may be shown later: it is decoded.
    """
    stream = opened.stream
    first = None
    with suppress(*DAMAGE):
        first = next((one for one in opened.container.decode(stream) if one.pts is not None), None)
    begin = stream.start_time if first is None else first.pts
    return (begin or 0) * time_step(stream)


def time_step(stream: Any) -> float:
    """The unit of the times of a stream, in seconds."""
    return float(stream.time_base or Fraction(1, 1000))


def key_frame(opened: Opened, seconds: float) -> float | None:
    """The time of the key frame just before `seconds`, if the pictures can be copied from it."""
    stream = opened.stream
    if stream.codec_context.codec.canonical_name not in COPIED_VIDEO:
        return None
    early = 0.5 / float(stream.average_rate or 25)
    packet = next(packets(opened, stream, seconds + early), None)
    if packet is None or packet.pts is None or not packet.is_keyframe:
        return None
    found: float = packet.pts * time_step(stream)
    if not -CLOSE <= found - seconds <= early:
        return None
    # What a file calls a key frame may need the frames before it.
    frames = [*packet.decode(), *stream.codec_context.decode(None)]
    stream.codec_context.flush_buffers()
    return found if frames and frames[0].pict_type == PictureType.I else None


def packets(opened: Opened, stream: Any, seconds: float) -> Iterator[Any]:
    """The packets of a stream from the last key frame at or before `seconds` on."""
    container = opened.container
    container.seek(round(seconds / time_step(stream)), stream=stream)
    return with_times(packet for packet in container.demux(stream) if packet.size)


def with_times(stored: Iterator[Any]) -> Iterator[Any]:
    """The same packets. Those without a time of decoding get one just before that of the next."""
    waiting: list[Any] = []
    for packet in stored:
        waiting.append(packet)
        if packet.dts is not None:
            for early, one in enumerate(reversed(waiting)):
                one.dts = packet.dts - early
            yield from waiting
            waiting.clear()


def encode(path: Path, start: float, end: float, output: Path) -> None:
    """Writes the pictures of a span as H.264, the right way up, at the usual rate of the video."""
    with closing(open_source(path, partial=True)) as source:
        rate = min(1 / source.interval, HIGHEST_FPS)

        def attempt() -> Iterator[None]:
            numbers = choose_frames(source, None, start, min(end, duration(source)), rate)
            wanted, counts = np.unique(numbers, return_counts=True)
            frames = (
                frame
                for image, count in zip(source.fetch(wanted), counts, strict=False)
                for frame in [even(image, source.aspect)] * count
            )
            write_video(output, frames, rate)
            yield

        for _ in source.consistently(attempt):
            pass


def duration(source: Any) -> float:
    """How long a source is, in seconds."""
    return float(source.times[-1] + source.interval)


def even(image: npt.NDArray[Any], aspect: float) -> npt.NDArray[np.uint8]:
    """A frame (H, W, 3) with square pixels and an even height and width, as the codec needs it."""
    height, width = image.shape[0] & ~1, round(image.shape[1] * aspect) & ~1
    if (height, width) == image.shape[:2]:
        return np.ascontiguousarray(image)
    size = (max(width, 2), max(height, 2))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def join(
    made: OutputContainer,
    pictures: Opened,
    first: float,
    length: float,
    sound: Opened,
    since: float,
) -> None:
    """Copies pictures from `first` on, and adds sound from `since` on, `length` seconds of each.

    The times are on the clocks of their files.
    """
    shown = made.add_stream_from_template(pictures.stream)
    heard = next(iter(sound.container.streams.audio), None)
    is_copied = heard is not None and heard.codec_context.codec.canonical_name in COPIED_SOUND
    added: Any = None
    if heard is not None:
        if is_copied:
            added = made.add_stream_from_template(heard)
        else:
            added = made.add_stream(SOUND, rate=heard.codec_context.sample_rate)
    for packet in whole_span(pictures, first, first + length):
        packet.stream = shown
        made.mux(packet)
    if heard is not None:
        add = copy_sound if is_copied else encode_sound
        add(made, sound, heard, added, since, since + length)


def whole_span(opened: Opened, start: float, end: float) -> Iterator[Any]:
    """The packets of the frames from a key frame at `start` to `end`, with times from 0 on.

    Frames are stored in the order of decoding. So that none is missing before one that others need,
    some at the end may come after `end`.
    """
    stream, held = opened.stream, list[Any]()
    step = time_step(stream)
    begin, stop = round(start / step), round(end / step)
    for packet in packets(opened, stream, start + 0.5 * step):
        if packet.dts >= stop:
            return
        # Frames that are shown before the key frame need others that are not here.
        if packet.pts is None or packet.pts < begin:
            continue
        held.append(packet)
        if packet.pts < stop:
            stop = max([stop, *(one.pts + 1 for one in held)])
            for one in held:
                one.pts, one.dts = one.pts - begin, one.dts - begin
            yield from held
            held.clear()


def copy_sound(
    made: OutputContainer, opened: Opened, heard: Any, added: Any, start: float, end: float
) -> None:
    """Copies the packets of a span of sound."""
    step = time_step(heard)
    begin, stop = round(start / step), round(end / step)
    for packet in packets(opened, heard, start):
        if packet.pts is None or packet.pts >= stop:
            break
        if packet.pts >= begin:
            packet.pts, packet.dts = packet.pts - begin, packet.dts - begin
            packet.stream = added
            made.mux(packet)


def encode_sound(
    made: OutputContainer, opened: Opened, heard: Any, added: Any, start: float, end: float
) -> None:
    """Decodes a span of sound, and encodes it anew."""
    rate = heard.codec_context.sample_rate
    converter = AudioResampler(format="fltp", layout=added.codec_context.layout, rate=rate)
    for packet in packets(opened, heard, start):
        for frame in packet.decode():
            if frame.time is None or frame.time < start:
                continue
            if frame.time >= end:
                made.mux(added.encode(None))
                return
            frame.pts = round((frame.time - start) * rate)
            frame.time_base = Fraction(1, rate)
            for ready in converter.resample(frame):
                made.mux(added.encode(ready))
    made.mux(added.encode(None))
