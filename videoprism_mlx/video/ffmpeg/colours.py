"""Decoded frames as RGB, with the pixels that ffmpeg makes of them."""

import functools
import itertools
import logging
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

Pixels = npt.NDArray[np.uint8]

Matrix = tuple[float, float, float, float]

# Frames with fewer pixels are converted sooner by one thread than by several.
MANY_PIXELS = 2**20

# The transfer functions of HDR video, by FFmpeg's numbers.
HDR = {16: "PQ", 18: "HLG"}

# Settings of the scale filter.
TONE_MAP = "out_transfer=bt709:out_primaries=bt709:intent=perceptual"


logger = logging.getLogger(__name__)


class Converter:
    """Turns frames the right way up and makes them RGB.

    FFmpeg's own filters do it, as in its command line: they go by the matrix, the range and the
    place of the colours that each frame is tagged with. With `tone_map`, the colours of HDR frames
    are brought to those of ordinary screens.
    """

    def __init__(self, tone_map: bool = False) -> None:
        self.tone_map = tone_map
        self._kind: Any = None
        self._graph: Graph | None = None

    def __call__(self, frame: VideoFrame) -> Pixels:
        """A decoded frame as (H, W, 3), 0-255."""
        matrix = display_matrix(frame)
        size, tags = (
            (frame.width, frame.height),
            (frame.colorspace, frame.color_range, frame.color_trc),
        )
        kind = (*size, frame.format.name, *tags, matrix)
        if self._graph is None or kind != self._kind:  # A file may change midway.
            tone_map = self.tone_map and frame.color_trc in HDR
            self._kind, self._graph = kind, make_graph(frame, matrix, tone_map)
        self._graph.push(frame)
        picture: Any = self._graph.pull()
        pixels: Pixels = picture.to_ndarray()
        return pixels


def make_graph(frame: VideoFrame, matrix: Matrix | None, tone_map: bool) -> Graph:
    """Filters that turn frames like this one and make them RGB."""
    graph = Graph()
    if frame.width * frame.height < MANY_PIXELS:
        graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    turns = [graph.add(name, settings) for name, settings in turning_filters(matrix)]
    scale = graph.add("scale", f"flags=bicubic:{TONE_MAP}" if tone_map else "flags=bicubic")
    rgb = graph.add("format", "pix_fmts=rgb24")
    chain = [source, *turns, scale, rgb, graph.add("buffersink")]
    for one, following in itertools.pairwise(chain):
        one.link_to(following)
    graph.configure()
    return graph


def display_matrix(frame: VideoFrame) -> Matrix | None:
    """How the frame is to be turned: x' = a x + c y, y' = b x + d y as (a, b, c, d)."""
    try:
        data = cast(Any, frame.side_data).get(Type.DISPLAYMATRIX)
    except ValueError:  # PyAV does not know all kinds of data, but the angle.
        turn = math.radians(frame.rotation)
        cosine, sine = round(math.cos(turn), 9), round(math.sin(turn), 9)
        return (cosine, -sine, sine, cosine) if frame.rotation else None
    if data is None:
        return None
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
    return a, b, c, d


def turning_filters(matrix: Matrix | None) -> list[tuple[str, str]]:
    """The filters, with their settings, that turn and mirror a picture as its matrix says."""
    if matrix is None:
        return []
    a, _, c, d = matrix
    degrees = angle(matrix)
    if degrees == 90:
        return [("transpose", "cclock_flip" if c > 0 else "clock")]
    if degrees == 270:
        return [("transpose", "clock_flip" if c < 0 else "cclock")]
    mirrored = [("hflip", a < 0 and degrees == 180), ("vflip", d < 0 and degrees in (0, 180))]
    turned = [("rotate", f"{degrees}*PI/180")] if degrees % 90 and degrees > 1 else []
    return turned or [(name, "") for name, is_mirrored in mirrored if is_mirrored]


def angle(matrix: Matrix | None) -> int:
    """By how many degrees, 0 to 359, a picture is turned clockwise."""
    a, b, c, d = matrix or (1, 0, 0, 1)
    across, down = math.hypot(a, c), math.hypot(b, d)
    return round(math.degrees(math.atan2(b / down, a / across))) % 360 if across and down else 0


@functools.cache
def note_hdr(path: Path, transfer: str) -> None:
    """Says once that a file is HDR video."""
    logger.warning(
        "%s is HDR video (%s): its colours are read without tone mapping, as ffmpeg reads them; "
        "tone_map=True (--tone-map) maps them",
        path,
        transfer,
    )


def pixel_aspect(stream: VideoStream, frame: VideoFrame) -> float:
    """The width of a pixel divided by its height, in frames that are the right way up."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return 1 / aspect if angle(display_matrix(frame)) in (90, 270) else aspect
