"""Whether a video file is complete, by the structure of its container.

Decoders play what they find. A file that is cut short or damaged is recognized by the sizes that
its boxes, chunks and elements declare.
"""

import os
import struct
from pathlib import Path
from typing import BinaryIO

_ISO_FIRST = {b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"pnot", b"styp"}

_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")

_OGG_PAGE = 27 + 255 + 255 * 255  # Bytes of the largest page.

_EBML, _SEGMENT, _CLUSTER = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
_IN_BOTH = {b"\xec", b"\xbf"}  # Void, CRC-32
_IN_SEGMENT = _IN_BOTH | {
    _CLUSTER,
    b"\x11\x4d\x9b\x74",  # SeekHead
    b"\x15\x49\xa9\x66",  # Info
    b"\x16\x54\xae\x6b",  # Tracks
    b"\x1c\x53\xbb\x6b",  # Cues
    b"\x12\x54\xc3\x67",  # Tags
    b"\x10\x43\xa7\x70",  # Chapters
    b"\x19\x41\xa4\x69",  # Attachments
}
_IN_CLUSTER = _IN_BOTH | {b"\xe7", b"\xa3", b"\xa0", b"\xab", b"\xa7", b"\x58\x54", b"\xaf"}


def fault(path: Path, deep: bool = False) -> str | None:
    """What is wrong with a file's structure; None if nothing is, or if that is unknown.

    `deep` also checks single packets, in containers that give their sizes.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(16)
        if head[4:8] in _ISO_FIRST:
            return _iso_fault(file, size)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            return _riff_fault(file, size, deep)
        if head[:4] == _EBML:
            return _matroska_fault(file, size, deep)
        if head == _ASF:
            return _asf_fault(file, size)
        if head[:4] == b"OggS":
            return _ogg_fault(file, size)
        if head[:3] == b"GIF":
            return _gif_fault(file, size)
    return None


def _cut(what: str, expected: int, found: int) -> str:
    return f"it is cut short: {what} should have {expected:,} bytes, {found:,} are there"


def _iso_fault(file: BinaryIO, size: int) -> str | None:
    """What is wrong with the boxes of an MP4 or QuickTime file."""
    at, kinds = 0, set()
    while at + 8 <= size:
        file.seek(at)
        header = file.read(16)
        length, kind = struct.unpack(">I4s", header[:8])
        if length == 1 and len(header) == 16:
            length = struct.unpack(">Q", header[8:])[0]
        elif length == 0 and kind.strip(b"\0"):
            length = size - at  # To the end of the file.
        if length < 8 or not _is_printable(kind):
            break  # Padding, or data that no decoder reads.
        if at + length > size:
            name = kind.decode("latin-1")
            return _cut(f"its part {name!r}", length, size - at)
        kinds.add(kind)
        at += length
    if not kinds & {b"moov", b"moof"}:
        return "it has no index (moov), which is written last: a recording or copy was not finished"
    return None


def _riff_fault(file: BinaryIO, size: int, deep: bool) -> str | None:
    """What is wrong with the chunks of an AVI file."""
    at = 0
    while at + 12 <= size:
        file.seek(at)
        kind, length = struct.unpack("<4sI", file.read(8))
        if kind != b"RIFF":
            break
        end = at + 8 + length
        if length in (0, 0xFFFFFFFF):  # Not filled in by the program that wrote it.
            end = size
        if end > size:
            return _cut("it", end, size)
        if deep and (damaged := _chunk_fault(file, at + 12, end)) is not None:
            return f"its chunks are damaged at byte {damaged:,}"
        at = end + length % 2
    return None


def _chunk_fault(file: BinaryIO, at: int, end: int) -> int | None:
    """The byte from which the chunks between `at` and `end` make no sense; None if all do."""
    ends = [end]
    while ends:
        if at + 8 > ends[-1]:
            at = ends.pop()
            continue
        file.seek(at)
        kind, length, form = struct.unpack("<4sI4s", file.read(12).ljust(12, b"\0"))
        if not _is_printable(kind) or at + 8 + length > ends[-1]:
            return at
        if kind == b"LIST" and form in (b"movi", b"rec "):
            ends.append(at + 8 + length)
            at += 12
        else:
            at += 8 + length + length % 2
    return None


def _matroska_fault(file: BinaryIO, size: int, deep: bool) -> str | None:
    """What is wrong with the elements of a Matroska or WebM file."""
    header = _element(file, 0)
    if header is None or header[2] is None or header[1] + header[2] >= size:
        return None
    element = _element(file, header[1] + header[2])
    if element is None or element[0] != _SEGMENT:
        return None
    _, at, length = element
    if length is not None and at + length > size:
        return _cut("it", at + length, size)
    if not deep:
        return None
    segment_end = size if length is None else at + length
    cluster_end: int | None = None
    while at < segment_end:
        element = _element(file, at)
        if element is None:
            return f"its elements are damaged at byte {at:,}"
        kind, start, length = element
        if cluster_end is not None and kind in _IN_CLUSTER:
            is_known, end = True, cluster_end
        else:
            is_known, end = kind in _IN_SEGMENT, segment_end
        if not is_known or (length is not None and start + length > end):
            return f"its elements are damaged at byte {at:,}"
        if kind == _CLUSTER:
            at, cluster_end = start, segment_end if length is None else start + length
        elif length is None:
            return None
        else:
            at = start + length
        if cluster_end is not None and at >= cluster_end:
            cluster_end = None
    return None


def _asf_fault(file: BinaryIO, size: int) -> str | None:
    """What is wrong with the header of an ASF (Windows Media) file."""
    file.seek(16)
    length = file.read(8)
    if len(length) < 8:
        return "it is cut short: its header is missing"
    header = file.read(min(struct.unpack("<Q", length)[0], 2**20))
    place = header.find(_ASF_PROPERTIES)
    if place < 0 or place + 92 > len(header):
        return None
    expected, flags = struct.unpack_from("<Q40xI", header, place + 40)
    is_broadcast = flags & 1  # Then the size was not filled in.
    return _cut("it", expected, size) if expected > size and not is_broadcast else None


def _ogg_fault(file: BinaryIO, size: int) -> str | None:
    """What is wrong with the pages of an Ogg file: the last one has a mark."""
    file.seek(max(0, size - _OGG_PAGE))
    end = file.read()
    last = end.rfind(b"OggS")
    is_marked = last >= 0 and last + 6 <= len(end) and end[last + 5] & 4
    return None if is_marked else "it is cut short: its last page is missing"


def _gif_fault(file: BinaryIO, size: int) -> str | None:
    """What is wrong with a GIF file: it ends in a semicolon, and zeros may follow."""
    file.seek(max(0, size - 64))
    is_ended = file.read().rstrip(b"\0").endswith(b";")
    return None if is_ended else "it is cut short: its end mark is missing"


def _element(file: BinaryIO, at: int) -> tuple[bytes, int, int | None] | None:
    """The id of the element at a byte, and the start and length of its data.

    The length is None if the file leaves it open; the result is None if there is no element.
    """
    file.seek(at)
    header = file.read(12)
    id_length = _number_length(header[:1], 4)
    size_length = _number_length(header[id_length : id_length + 1], 8) if id_length else 0
    if not size_length or len(header) < id_length + size_length:
        return None
    encoded = header[id_length : id_length + size_length]
    ones = (1 << 7 * size_length) - 1
    length = int.from_bytes(encoded, "big") & ones
    return header[:id_length], at + id_length + size_length, None if length == ones else length


def _number_length(first: bytes, most: int) -> int:
    """The length in bytes of a number with this first byte; 0 if no number begins so."""
    length = 9 - first[0].bit_length() if first and first[0] else 0
    return length if length <= most else 0


def _is_printable(kind: bytes) -> bool:
    return all(32 <= byte < 127 or byte == 0xA9 for byte in kind)
