"""Decoding the frames of a stream one after the other, from its start or from a key frame."""

import itertools
from collections.abc import Callable, Iterator

import av
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from videoprism_mlx.video.failures import DAMAGE
from videoprism_mlx.video.ffmpeg.index import Index
from videoprism_mlx.video.ffmpeg.opening import Opened

# A seek may end a few frames late, as many as the codec reorders. So many frames earlier is tried.
SEEK_EARLY = (0, 8, 64)


class Decoder:
    """The frames of a stream, as an iterator that can be moved.

    A packet that cannot be decoded gives None instead of a frame.
    """

    _frames: Iterator[VideoFrame | None]  # Those that follow.

    def __init__(self, reopen: Callable[..., Opened]):
        self._reopen = reopen
        self.container, self.stream = reopen()
        self._begin()

    def close(self) -> None:
        """Closes the file."""
        self.container.close()

    def __iter__(self) -> Iterator[VideoFrame | None]:
        return self

    def __next__(self) -> VideoFrame | None:
        return next(self._frames)

    def first(self) -> VideoFrame | None:
        """The first frame that can be decoded, which still comes next. None if there is none."""
        begun: list[VideoFrame | None] = []
        for frame in self._frames:
            begun.append(frame)
            if frame is not None:
                self._frames = itertools.chain(begun, self._frames)
                return frame
        return None

    def restart(self, threads: bool = True) -> None:
        """Goes back to before the first frame."""
        self.container.close()
        self.container, self.stream = self._reopen(threads=threads)
        self._begin()

    def seek(self, index: Index, key: int, latest: int) -> int | None:
        """Goes to key frame `key` of the index, and returns its number.

        None if it is not there, or has a later clock than `latest`. Then the position is unknown.
        """
        clock, step = int(index.keys[key]), int(np.diff(index.clocks[:2]).max(initial=1))
        for early in SEEK_EARLY:
            self.container.seek(max(clock - early * step, 0), stream=self.stream)
            for packet in self.container.demux(self.stream):
                if packet.pts is None or (packet.pts > clock and not packet.is_keyframe):
                    break  # The seek ended between two key frames.
                if packet.is_keyframe and packet.pts >= clock:
                    number = int(np.searchsorted(index.clocks, packet.pts))
                    if packet.pts > latest or index.clocks[number] != packet.pts:
                        break
                    self._begin(packet)
                    return number
        return None

    def _begin(self, *read: "Packet[VideoStream]") -> None:
        """Decodes from here on, first the packets that were `read` already."""
        self._frames = self._decoded(*read)

    def _decoded(self, *read: "Packet[VideoStream]") -> Iterator[VideoFrame | None]:
        try:
            for packet in itertools.chain(read, self.container.demux(self.stream)):
                try:
                    yield from packet.decode()
                except av.FFmpegError:
                    yield None
        except DAMAGE:
            yield None
