"""Packets that need not be decoded: those of H.264 frames from which no other frame is predicted.

Encoders make such frames of a third to a half of a video. Whoever takes a few frames a second saves
as much of the decoding.
"""

from collections.abc import Iterator

from av.packet import Packet
from av.video.stream import VideoStream

# The kinds of NAL units that hold a part of a picture. The two bits before the kind are zero if no
# other picture needs the unit. They are not zero in parameters, which may come with any picture.
PICTURES, KIND, NEEDED = range(1, 6), 0x1F, 0x60

START_CODE = b"\0\0\1"


class Unneeded:
    """Whether a packet of a stream is known to hold nothing that other frames need."""

    def __init__(self, stream: VideoStream):
        context = stream.codec_context
        self._is_known = context.name == "h264"
        header = bytes(context.extradata or b"")
        # In MP4 and Matroska, a unit follows its length of so many bytes; elsewhere a start code.
        self._length = (header[4] & 3) + 1 if header[:1] == b"\1" and len(header) > 4 else 0

    def __call__(self, packet: "Packet[VideoStream]") -> bool:
        """Whether the packet can be left out. A packet that is not understood cannot."""
        if not self._is_known or packet.is_keyframe or packet.is_corrupt:
            return False
        data = bytes(packet)
        units = [*(sized_units(data, self._length) if self._length else started_units(data))]
        known = [unit for unit in units if unit is not None and not unit & NEEDED]
        return len(known) == len(units) and any(unit & KIND in PICTURES for unit in known)


def sized_units(data: bytes, length: int) -> Iterator[int | None]:
    """The first byte of each NAL unit; None where the lengths, of `length` bytes, make no sense."""
    at = 0
    while at < len(data):
        first = at + length
        at = first + int.from_bytes(data[at:first], "big")
        if not first < at <= len(data):
            yield None
            return
        yield data[first]


def started_units(data: bytes) -> Iterator[int | None]:
    """The first byte of each NAL unit that follows a start code."""
    at = data.find(START_CODE)
    while 0 <= at < len(data) - len(START_CODE):
        yield data[at + len(START_CODE)]
        at = data.find(START_CODE, at + len(START_CODE))
