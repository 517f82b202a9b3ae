"""Which stream of a file is decoded, and with what."""

from pathlib import Path

import av
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.container import InputContainer
from av.video.stream import VideoStream

from videoprism_mlx.errors import InputError, VideoError
from videoprism_mlx.video.failures import CONVERT

# FFmpeg adds these to the pixels of a default stream.
DEFAULT_PIXELS = 5_000_000

# What FFmpeg calls the decoder of a Mac.
VIDEOTOOLBOX = "videotoolbox"


def choose_stream(container: InputContainer, path: Path, wanted: int | None) -> VideoStream:
    """The video stream of that number in the file, or the one that FFmpeg shows.

    FFmpeg shows the stream with the most pixels. For a default stream, it counts more pixels than
    there are. Cover pictures are left out.
    """
    attached = av.stream.Disposition.attached_pic
    videos = [one for one in container.streams.video if not one.disposition & attached]
    if wanted is not None:
        for one in videos:
            if one.index == wanted:
                return one
        numbers = ", ".join(str(one.index) for one in videos) or "none"
        raise InputError(f"{path} has no video stream {wanted}; its video streams are: {numbers}")
    if videos and all(one.codec_context is None for one in videos):
        raise VideoError(f"{path} is of a codec that this FFmpeg has no decoder for; {CONVERT}")
    videos = [one for one in videos if one.codec_context is not None]
    if not videos:
        raise VideoError(
            f"{path} is no video that FFmpeg can open; expected a file with a video stream: "
            "is it sound alone, or something else?"
        )

    def rank(one: VideoStream) -> int:
        is_default = bool(one.disposition & av.stream.Disposition.default)
        return one.codec_context.width * one.codec_context.height + is_default * DEFAULT_PIXELS

    return max(videos, key=rank)


def machine_decoder() -> str | None:
    """The machine's own decoder that may be used besides software; None if it has none."""
    return VIDEOTOOLBOX if VIDEOTOOLBOX in hwdevices_available() else None


def accelerator(hardware: str) -> HWAccel | None:
    """The machine's own decoder, if it may be used and there is one."""
    device = machine_decoder() if hardware == "auto" else None
    return None if device is None else HWAccel(device, allow_software_fallback=True)
