"""Decoded frames as RGB, with the pixels that ffmpeg makes of them."""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

Pixels = npt.NDArray[np.uint8]

# Which way a picture is transposed, by the signs of the two corners of its display matrix.
TRANSPOSED = {
    (True, False): "clock",
    (False, True): "cclock",
    (True, True): "cclock_flip",
    (False, False): "clock_flip",
}


# Frames with fewer pixels are converted sooner by one thread than by several.
MANY_PIXELS = 2**20

# The transfer functions of HDR video, by FFmpeg's numbers.
HDR = {16: "PQ", 18: "HLG"}

HDR_NOTE = (
    "%s is HDR video (%s): its colours are read as if it were not, as ffmpeg reads them; "
    "tone_map=True (--tone-map) brings them to those of ordinary screens"
)

# Settings of the scale filter.
TONE_MAP = "out_transfer=bt709:out_primaries=bt709:intent=perceptual"


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
        size, tags = (frame.width, frame.height), (frame.colorspace, frame.color_range)
        kind = (*size, frame.format.name, *tags, matrix)
        if self._graph is None or kind != self._kind:  # A file may change midway.
            tone_map = self.tone_map and frame.color_trc in HDR
            self._kind, self._graph = kind, make_graph(frame, matrix, tone_map)
        self._graph.push(frame)
        picture: Any = self._graph.pull()
        pixels: Pixels = picture.to_ndarray()
        return pixels


def make_graph(frame: VideoFrame, matrix: tuple[int, ...] | None, tone_map: bool) -> Graph:
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


def display_matrix(frame: VideoFrame) -> tuple[int, ...] | None:
    """How the frame is to be turned: x' = a x + c y, y' = b x + d y as (a, b, c, d)."""
    data: Any = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]  # Not a name.
    if data is None:
        return None
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
    return a, b, c, d


def turning_filters(matrix: tuple[int, ...] | None) -> list[tuple[str, str]]:
    """The filters, with their settings, that turn and mirror a picture as its matrix says."""
    if matrix is None:
        return []
    a, b, c, d = matrix
    if is_on_its_side(matrix):
        return [("transpose", TRANSPOSED[b > 0, c > 0])]
    return [(name, "") for name, is_mirrored in (("hflip", a < 0), ("vflip", d < 0)) if is_mirrored]


def pixel_aspect(stream: VideoStream, frame: VideoFrame) -> float:
    """The width of a pixel divided by its height, in frames that are the right way up."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return 1 / aspect if is_on_its_side(display_matrix(frame)) else aspect


def is_on_its_side(matrix: tuple[int, ...] | None) -> bool:
    """Whether the picture is turned by a quarter."""
    return matrix is not None and abs(matrix[1]) > abs(matrix[0])
