"""Whether a video file is complete, by the structure of its container.

Decoders play what they find. A file that is cut short or damaged is recognized by the sizes that
its parts (boxes, chunks, elements) declare.
"""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

ISO_FIRST = {b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"pnot", b"styp"}
ISO_LATER = ISO_FIRST | {b"moof", b"mfra", b"sidx", b"udta", b"meta", b"uuid"}

ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")

OGG_PAGE = 27 + 255 + 255 * 255  # Bytes of the largest page.

# The elements of Matroska: a segment has clusters, in which frames lie, and others. Void elements
# and checksums are anywhere.
EBML, SEGMENT, CLUSTER = "1a45dfa3", "18538067", "1f43b675"
IN_CLUSTER = ("e7", "a3", "a0", "ab", "a7", "5854", "af")
OTHERS = ("ec", "bf", "114d9b74", "1549a966", "1654ae6b", "1c53bb6b", "1254c367")
RARE = (EBML, SEGMENT, "1043a770", "1941a469")
UNKNOWN_ELEMENTS = 2  # So many may follow each other, and not more: noise looks like them.
ELEMENT_BYTES = 12  # The most that an element has before its content.
ELEMENTS = tuple(map(bytes.fromhex, (CLUSTER, *IN_CLUSTER, *OTHERS, *RARE)))


class Part(NamedTuple):
    """A part of a file, and where its content lies. The end may be left open."""

    kind: bytes
    start: int
    end: int | None


Reader = Callable[[BinaryIO, int], Part | None]


def fault(path: Path, deep: bool = False) -> str | None:
    """What is wrong with a file's structure; None if nothing is, or if that is unknown.

    `deep` also checks single packets, in containers that give their sizes.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(16)
        if head[4:8] in ISO_FIRST:
            return iso_fault(file, size)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            return riff_fault(file, size, deep)
        if head[:4].hex() == EBML:
            return matroska_fault(file, size, deep)
        if head == ASF:
            return asf_fault(file, size)
        if head[:4] == b"OggS":
            return ogg_fault(file, size)
        if head[:3] == b"GIF":  # It ends in a semicolon, and zeros may follow.
            file.seek(max(0, size - 64))
            is_ended = file.read().rstrip(b"\0 \r\n").endswith(b";")
            return None if is_ended else "it is cut short: its end mark is missing"
    return None


def cut(what: str, expected: int, found: int) -> str:
    """The fault of a file that ends too early."""
    return f"it is cut short: {what} should have {expected:,} bytes, {found:,} are there"


def iso_fault(file: BinaryIO, size: int) -> str | None:
    """What is wrong with the boxes of an MP4 or QuickTime file."""
    at = 0
    kinds: set[bytes] = set()
    while at + 8 <= size:
        length, kind = struct.unpack(">I4s", read_at(file, at, 8))
        if {b"moov", b"mdat"} <= kinds and kind not in ISO_LATER:
            break  # Something else follows the video.
        long = read_at(file, at + 8, 8)
        if length == 1 and len(long) == 8:
            [length] = struct.unpack(">Q", long)
        elif length == 0 and kind.strip(b"\0"):
            length = size - at  # To the end of the file.
        if length < 8 or not is_printable(kind):
            break  # Padding, or data that no decoder reads.
        if at + length > size:
            return cut(f"its part {kind.decode('latin-1')!r}", length, size - at)
        kinds.add(kind)
        at += length
    if not kinds & {b"moov", b"moof"}:
        return "it has no index (moov), which is written last: a recording or copy was not finished"
    return None


def riff_fault(file: BinaryIO, size: int, deep: bool) -> str | None:
    """What is wrong with the chunks of an AVI file."""
    at = 0
    while (part := read_chunk(file, at)) and part.kind == b"RIFF":
        end = part.end or size
        if end > size:
            return cut("it", end, size)
        damaged = damaged_at(file, part.start + 4, end, read_chunk, 8) if deep else None
        if damaged is not None:
            return f"its chunks are damaged at byte {damaged:,}"
        at = end + end % 2
    return None


def matroska_fault(file: BinaryIO, size: int, deep: bool) -> str | None:
    """What is wrong with the elements of a Matroska or WebM file."""
    header = read_element(file, 0)
    if header is None or header.end is None or header.end >= size:
        return None
    segment = read_element(file, header.end)
    if segment is None or segment.kind.hex() != SEGMENT:
        return None
    end = segment.end or size
    if end > size:
        return cut("it", end, size)
    damaged = damaged_at(file, segment.start, end, read_element, 1) if deep else None
    if damaged is not None and segment.end is None:  # A recording may be stopped at any byte.
        last, rest = read_element(file, damaged), read_at(file, damaged, 2**16)
        is_stopped = (last.end or 0) > size if last else not rest[ELEMENT_BYTES:].strip(b"\0")
        damaged = None if is_stopped else damaged
    return None if damaged is None else f"its elements are damaged at byte {damaged:,}"


def damaged_at(file: BinaryIO, at: int, end: int, read: Reader, least: int) -> int | None:
    """The byte from which the parts between `at` and `end` make no sense; None if all do.

    A part has `least` bytes or more.
    """
    ends = [end]
    while ends:
        if at + least > ends[-1]:
            at = ends.pop()
            continue
        part = read(file, at)
        if part is None or (part.end or at) > ends[-1] or not is_known(file, part, ends[-1], read):
            return at
        is_list = part.kind == b"LIST" and read_at(file, part.start, 4) in (b"movi", b"rec ")
        if is_list or part.kind.hex() == CLUSTER:
            ends.append(part.end or ends[-1])
            at = part.start + 4 * is_list
        elif part.end is None:
            return None
        else:
            at = part.end + (part.end % 2 if read is read_chunk else 0)
    return None


def read_chunk(file: BinaryIO, at: int) -> Part | None:
    """The RIFF chunk at a byte; None if there is none."""
    header = read_at(file, at, 8)
    if len(header) < 8 or not is_printable(header[:4]):
        return None
    length = int.from_bytes(header[4:], "little")
    is_open = header[:4] in (b"RIFF", b"LIST") and length in (0, 0xFFFFFFFF)  # Never closed.
    return Part(header[:4], at + 8, None if is_open else at + 8 + length)


def read_element(file: BinaryIO, at: int) -> Part | None:
    """The Matroska element at a byte; None if there is none."""
    header = read_at(file, at, ELEMENT_BYTES)
    id_length = number_length(header[:1])
    size_length = number_length(header[id_length : id_length + 1])
    start = id_length + size_length
    if not size_length or len(header) < start:
        return None
    ones = (1 << 7 * size_length) - 1
    length = int.from_bytes(header[id_length:start], "big") & ones
    return Part(header[:id_length], at + start, None if length == ones else at + start + length)


def is_known(file: BinaryIO, part: Part, end: int, read: Reader) -> bool:
    """Whether a part has a name that is known, or is followed by such a one or the end."""
    for _ in range(UNKNOWN_ELEMENTS):
        if read is read_chunk or part.kind in ELEMENTS or part.end == end:
            return True
        following = None if part.end is None else read(file, part.end)
        if following is None:
            return False
        part = following
    return part.kind in ELEMENTS


def number_length(first: bytes) -> int:
    """The length in bytes of a Matroska number with this first byte; 0 if none begins so."""
    return 9 - first[0].bit_length() if first and first[0] else 0


def asf_fault(file: BinaryIO, size: int) -> str | None:
    """What is wrong with the header of an ASF (Windows Media) file."""
    length = read_at(file, 16, 8)
    if len(length) < 8:
        return "it is cut short: its header is missing"
    header = read_at(file, 24, min(struct.unpack("<Q", length)[0], 2**20))
    place = header.find(ASF_PROPERTIES)
    if place < 0 or place + 92 > len(header):
        return None
    expected, flags = struct.unpack_from("<Q40xI", header, place + 40)
    is_broadcast = flags & 1  # Then the size was not filled in.
    return cut("it", expected, size) if expected > size and not is_broadcast else None


def ogg_fault(file: BinaryIO, size: int) -> str | None:
    """What is wrong with the pages of an Ogg file: the last one has a mark."""
    end = read_at(file, max(0, size - OGG_PAGE), OGG_PAGE)
    last = end.rfind(b"OggS")
    is_marked = last >= 0 and last + 6 <= len(end) and end[last + 5] & 4
    return None if is_marked else "it is cut short: its last page is missing"


def read_at(file: BinaryIO, at: int, count: int) -> bytes:
    """So many bytes of a file, or fewer at its end."""
    if at > os.fstat(file.fileno()).st_size:  # Systems refuse to go to a place far beyond the end.
        return b""
    file.seek(at)
    return file.read(count)


def is_printable(kind: bytes) -> bool:
    """Whether this can be the name of a box or chunk."""
    return all(32 <= byte < 127 or byte == 0xA9 for byte in kind)
