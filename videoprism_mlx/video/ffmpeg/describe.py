"""What a video file holds: its streams, and the one that is read."""

from contextlib import closing
from pathlib import Path
from typing import Any

from av.codec.hwaccel import hwdevices_available
from av.video.stream import VideoStream

from videoprism_mlx.video.ffmpeg.damage import fault as find_fault
from videoprism_mlx.video.ffmpeg.decoding import PLAIN, Decoding
from videoprism_mlx.video.ffmpeg.opening import open_stream
from videoprism_mlx.video.ffmpeg.reader import VideoFile

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

    Packets are read, and the first frame is decoded. `damage` is what is wrong with the file's
    structure, or None: single broken frames are only seen when they are decoded.
    """
    path = Path(path)
    file = VideoFile(path, partial=True, decoding=decoding)
    try:
        frames, duration = len(file.times), float(file.times[-1]) + file.interval
        rate, fault = 1 / file.interval, file.damage
    finally:
        file.close()
    with closing(open_stream(path, decoding)) as opened:
        chosen, context = opened.stream, opened.stream.codec_context
        return {
            "video": str(path),
            "container": opened.container.format.long_name,
            "stream": chosen.index,
            "codec": context.codec.long_name,
            "size": [context.width, context.height],
            "pixels": context.pix_fmt,
            "frames": frames,
            "fps": round(rate, 3),
            "seconds": round(duration, 3),
            "colours": colour_tags(chosen),
            "hardware": hardware_decoder(chosen),
            "damage": fault or find_fault(path, deep=True),
            "streams": [
                {"stream": one.index, "type": one.type, "codec": codec_name(one)}
                for one in opened.container.streams
            ],
        }


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


def codec_name(stream: Any) -> str | None:
    """What FFmpeg calls the codec of a stream; None if it has no decoder for it."""
    context = getattr(stream, "codec_context", None)
    return context.name if context is not None else None


def hardware_decoder(stream: VideoStream) -> str | None:
    """The machine's decoder that takes this stream's codec; None if there is none."""
    configs = getattr(stream.codec_context.codec, "hardware_configs", [])
    devices = {str(config.device_type.name) for config in configs if config.is_supported}
    return "videotoolbox" if "videotoolbox" in devices & set(hwdevices_available()) else None
