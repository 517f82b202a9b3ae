"""Decoding the frames of a stream one after the other, from its start or from a key frame."""

import itertools
from collections.abc import Callable, Container, Iterator
from contextlib import suppress

import av
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from videoprism_mlx.video.failures import DAMAGE
from videoprism_mlx.video.ffmpeg.index import NO_CLOCK, Index
from videoprism_mlx.video.ffmpeg.opening import Opened
from videoprism_mlx.video.ffmpeg.unneeded import Unneeded

# Packets of a file with no more bytes than this are kept once they are read.
KEPT_BYTES = 2**25

# A seek may end a few frames late, as many as the codec reorders. So many frames earlier is tried.
SEEK_EARLY = (0, 8, 64)


class Decoder:
    """The frames of a stream, in `frames`, and None where a frame or packet is damaged.

    Once the clocks of the frames that are `wanted` are given, B-frames with others are left out if
    that is no loss for the rest: see `Unneeded`. `left_out` are their clocks, until these pass.
    """

    frames: Iterator[VideoFrame | None]
    wanted: Container[int] | None = None

    def __init__(self, reopen: Callable[..., Opened]):
        self._reopen = reopen
        self.threads = True  # Several threads conceal damage in another way each time.
        self.opened = reopen()
        self._begin()

    def first(self) -> VideoFrame | None:
        """The first frame that can be decoded, which still comes next. None if there is none."""
        begun: list[VideoFrame | None] = []
        for frame in self.frames:
            begun.append(frame)
            if frame is not None:
                break
        self.frames = itertools.chain(begun, self.frames)
        return begun[-1] if begun else None

    def packets(self) -> Iterator["Packet[VideoStream]"]:
        """All packets of the stream, not decoded. After them, decoding begins at the first one."""
        kept: list[Packet[VideoStream]] = []
        total = 0
        try:
            for packet in self.opened.container.demux(self.opened.stream):
                if packet.size:
                    yield packet
                    total += packet.size
                    if total <= KEPT_BYTES:
                        kept.append(packet)
                    else:
                        kept.clear()
        except DAMAGE:  # Decoding will find it.
            total = KEPT_BYTES + 1
        if total > KEPT_BYTES:
            self.restart()
        else:
            self._begin(*kept)

    @property
    def skips_damage(self) -> bool:
        """Whether FFmpeg goes on after damage in the container, without a word."""
        return "matroska" in self.opened.container.format.name

    def restart(self) -> None:
        """Goes back to before the first frame."""
        self.opened.close()
        self.opened = self._reopen(threads=self.threads)
        self._begin()

    def seek(self, index: Index, key: int, latest: int) -> int | None:
        """Goes to key frame `key` of the index, and returns its number.

        None if it is not there, or has a later clock than `latest`. Then the position is unknown.
        """
        clock, step = int(index.keys[key]), int(np.diff(index.clocks[:2]).max(initial=1))
        for early in SEEK_EARLY:
            with suppress(*DAMAGE):  # FFmpeg cannot seek to every place in every file.
                place = self._keyed(clock, clock - early * step)
                if place is None or place.pts is None:
                    continue
                number = int(np.searchsorted(index.clocks, place.pts))
                if place.pts <= latest and index.clocks[number] == place.pts:
                    self._begin(place)
                    return number
        return None

    def _keyed(self, clock: int, sought: int) -> "Packet[VideoStream] | None":
        """The first key frame from `clock` on, if it comes first after a seek to `sought`."""
        container, stream = self.opened.container, self.opened.stream
        container.seek(sought, stream=stream)
        for packet in container.demux(stream):
            if packet.pts is None or (packet.pts > clock and not packet.is_keyframe):
                return None  # The seek ended between two key frames.
            if packet.is_keyframe and packet.pts >= clock:
                return packet
        return None

    def _begin(self, *read: "Packet[VideoStream]") -> None:
        """Decodes from here on, first the packets that were `read` already."""
        self.left_out: set[int] = set()
        self.has_left_out = False  # Since the last seek.
        self._latest = NO_CLOCK  # The latest clock of a packet since then.
        self._is_unneeded = Unneeded(self.opened.stream)
        self.frames = self._decoded(*read)

    def _decoded(self, *read: "Packet[VideoStream]") -> Iterator[VideoFrame | None]:
        try:
            for packet in itertools.chain(read, self.opened.container.demux(self.opened.stream)):
                if self._leaves_out(packet):
                    continue
                try:
                    for frame in packet.decode():
                        yield None if frame.is_corrupt else frame
                except av.FFmpegError:
                    yield None
        except DAMAGE:
            yield None

    def _leaves_out(self, packet: "Packet[VideoStream]") -> bool:
        clock = packet.pts
        if clock is None:
            return False
        self._latest = max(self._latest, clock)
        # Some files have times of decoding for those of display, so that B-frames come too late. A
        # frame that is shown before one that was decoded earlier has its own time.
        if self.wanted is None or clock in self.wanted or clock == self._latest:
            return False
        if is_unneeded := self._is_unneeded(packet):
            self.left_out.add(clock)
            self.has_left_out = True
        return is_unneeded
