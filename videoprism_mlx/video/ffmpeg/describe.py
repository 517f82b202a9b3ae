"""What a video file holds: its streams, and the one that is read."""

import dataclasses
from contextlib import closing
from pathlib import Path
from typing import Any

import av
from av.video.stream import VideoStream

from videoprism_mlx.video.ffmpeg.damage import fault as find_fault
from videoprism_mlx.video.ffmpeg.decoding import PLAIN, Decoding
from videoprism_mlx.video.ffmpeg.opening import open_stream
from videoprism_mlx.video.ffmpeg.reader import VideoFile
from videoprism_mlx.video.ffmpeg.streams import machine_decoder

# The numbers of ITU-T H.273, by the names that ffmpeg has for them.
COLOUR_TAGS = {
    "matrix": {
        0: "gbr",
        1: "bt709",
        4: "fcc",
        5: "bt470bg",
        6: "smpte170m",
        7: "smpte240m",
        8: "ycgco",
        9: "bt2020nc",
        10: "bt2020c",
    },
    "range": {1: "tv", 2: "pc"},
    "transfer": {
        1: "bt709",
        4: "gamma22",
        5: "gamma28",
        6: "smpte170m",
        7: "smpte240m",
        8: "linear",
        13: "iec61966-2-1",
        14: "bt2020-10",
        15: "bt2020-12",
        16: "smpte2084",
        18: "arib-std-b67",
    },
    "primaries": {
        1: "bt709",
        4: "bt470m",
        5: "bt470bg",
        6: "smpte170m",
        7: "smpte240m",
        9: "bt2020",
        11: "smpte431",
        12: "smpte432",
    },
}
UNSPECIFIED = {"range": 0}  # It is 2 for the others.


def describe_video(path: str | Path, decoding: Decoding = PLAIN) -> dict[str, Any]:
    """What there is to say about a video file, in values that JSON can hold.

    Packets are read, and the first frame is decoded. `size` is that of a frame as it is read, the
    right way up, and `aspect` the width of its pixels divided by their height. `damage` is what is
    wrong with the file's structure, or None: single broken frames are only seen when they are
    decoded.
    """
    path = Path(path)
    quiet = dataclasses.replace(decoding, tone_map=True)  # Without a word about HDR.
    with closing(VideoFile(path, partial=True, decoding=quiet)) as file:
        frames, last = len(file.times), float(file.times[-1])
        [first] = next(file.consistently(lambda: iter([[*file.fetch([0])]])))
        fault, aspect = file.damage or find_fault(path, deep=True), file.aspect
        rate, duration = (frames - 1) / last if last else file.fps, last + file.interval
    with closing(open_stream(path, decoding)) as opened:
        chosen, context = opened.stream, opened.stream.codec_context
        return {
            "video": str(path),
            "container": opened.container.format.long_name,
            "stream": chosen.index,
            "codec": context.codec.long_name,
            "size": [first.shape[1], first.shape[0]],
            "aspect": aspect,
            "pixels": context.pix_fmt,
            "frames": frames,
            "fps": round(rate, 3),
            "seconds": round(duration, 3),
            "colours": colour_tags(chosen),
            "hardware": hardware_decoder(chosen),
            "damage": fault,
            "streams": [describe_stream(one) for one in opened.container.streams],
        }


def describe_stream(stream: Any) -> dict[str, Any]:
    """What a stream of the file is: its number, its kind and, if FFmpeg decodes it, its codec."""
    context = getattr(stream, "codec_context", None)
    described = {"stream": stream.index, "type": stream.type, "codec": None}
    if context is not None:
        described["codec"] = context.name
        if stream.type == "video":
            described["size"] = [context.width, context.height]
    marks = ("default", "attached_pic")
    flags = [mark for mark in marks if stream.disposition & av.stream.Disposition[mark]]
    return described | {"marks": ["cover" if mark == "attached_pic" else mark for mark in flags]}


def colour_tags(stream: VideoStream) -> dict[str, str | None]:
    """How the file says that its colours are meant; None where it does not say."""
    context = stream.codec_context
    numbers = (
        context.colorspace,
        context.color_range,
        context.color_trc,
        context.color_primaries,
    )
    return {
        name: None if number == UNSPECIFIED.get(name, 2) else names.get(number, str(number))
        for (name, names), number in zip(COLOUR_TAGS.items(), numbers, strict=True)
    }


def hardware_decoder(stream: VideoStream) -> str | None:
    """The machine's decoder that takes this stream's codec; None if there is none."""
    configs = getattr(stream.codec_context.codec, "hardware_configs", [])
    devices = {str(config.device_type.name) for config in configs if config.is_supported}
    device = machine_decoder()
    return device if device in devices else None
