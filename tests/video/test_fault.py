"""What a file's structure says about it, on containers made byte by byte."""

import random
import struct
from pathlib import Path

import pytest

from videoprism_mlx.video.ffmpeg.damage import fault


def box(kind: bytes, payload: bytes = b"", long: bool = False) -> bytes:
    if long:
        return struct.pack(">I4sQ", 1, kind, len(payload) + 16) + payload
    return struct.pack(">I4s", len(payload) + 8, kind) + payload


def chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack("<4sI", kind, len(payload)) + payload + b"\0" * (len(payload) % 2)


def element(kind: bytes, payload: bytes, known: bool = True) -> bytes:
    size = (1 << 56 | len(payload)).to_bytes(8, "big") if known else b"\x01" + b"\xff" * 7
    return kind + size + payload


MP4 = box(b"ftyp", b"isom" * 4) + box(b"moov", b"m" * 90) + box(b"mdat", b"d" * 900)
FRAMES = b"".join(chunk(b"00dc", bytes([i]) * (31 + i)) for i in range(8))
MOVIE = chunk(b"LIST", b"movi" + FRAMES)
NESTED = chunk(b"LIST", b"movi" + chunk(b"LIST", b"rec " + FRAMES))
AVI = chunk(b"RIFF", b"AVI " + chunk(b"LIST", b"hdrl" + b"h" * 60) + MOVIE)
BLOCKS = element(b"\xe7", b"\0") + b"".join(element(b"\xa3", b"b" * 40) for _ in range(6))
CLUSTER = element(b"\x1f\x43\xb6\x75", BLOCKS)
LIVE_CLUSTER = element(b"\x1f\x43\xb6\x75", BLOCKS, known=False)
INFO = element(b"\x15\x49\xa9\x66", b"i" * 20)
EBML = element(b"\x1a\x45\xdf\xa3", b"webm" * 4)
MKV = EBML + element(b"\x18\x53\x80\x67", INFO + CLUSTER * 3)

WHOLE = {
    "mp4": MP4,
    "mp4, index last": box(b"ftyp") + box(b"mdat", b"d" * 900) + box(b"moov"),
    "mp4, long sizes": box(b"ftyp") + box(b"moov") + box(b"mdat", b"d" * 900, long=True),
    "mp4, to the end": box(b"ftyp") + box(b"moov") + struct.pack(">I4s", 0, b"mdat") + b"d" * 99,
    "mp4, in fragments": box(b"ftyp") + (box(b"moof", b"f" * 9) + box(b"mdat", b"d" * 99)) * 3,
    "mp4, padded": MP4 + b"\0" * 37,
    "old quicktime": box(b"wide") + box(b"mdat", b"d" * 99) + box(b"moov"),
    "avi": AVI,
    "avi, opendml": AVI + chunk(b"RIFF", b"AVIX" + MOVIE),
    "avi, nested": chunk(b"RIFF", b"AVI " + NESTED),
    "avi, never closed": AVI[:4] + b"\0\0\0\0" + AVI[8:],
    "matroska": MKV,
    "matroska, live": EBML + element(b"\x18\x53\x80\x67", INFO + LIVE_CLUSTER * 3, known=False),
    "mp4, text follows": MP4 + b"<caption>A title.</caption>" * 9,
    "mp4, a tag follows": MP4 + b"TAG".ljust(128, b" "),
    "avi, capture not closed": AVI.replace(MOVIE[:8], MOVIE[:4] + bytes(4)),
    "matroska, unknown element": EBML
    + element(b"\x18\x53\x80\x67", INFO + element(b"\x42\x99", b"u" * 30) + CLUSTER * 3),
    "matroska, unknown elements at the end": EBML
    + element(b"\x18\x53\x80\x67", INFO + CLUSTER * 2 + element(b"\x42\x99", b"u" * 30) * 2),
    "matroska, live, padded": EBML
    + element(b"\x18\x53\x80\x67", INFO + LIVE_CLUSTER, known=False)
    + bytes(4096),
    "gif, a line follows": b"GIF89a" + b"g" * 90 + b";\r\n",
    "mpeg-ts": (b"\x47" + b"p" * 187) * 9,
    "text": b"not a video at all, but long enough to be looked at",
    "tiny": b"\0",
}


def verdicts(path: Path, content: bytes) -> tuple[str | None, str | None]:
    path.write_bytes(content)
    return fault(path), fault(path, deep=True)


@pytest.mark.parametrize("name", WHOLE)
def test_nothing_is_wrong_with_a_whole_file(tmp_path: Path, name: str) -> None:
    assert verdicts(tmp_path / "file", WHOLE[name]) == (None, None)


@pytest.mark.parametrize("name", ["mp4", "mp4, index last", "mp4, long sizes", "avi", "matroska"])
def test_a_file_that_is_cut_short_is_told(tmp_path: Path, name: str) -> None:
    whole = WHOLE[name]
    for length in range(200, len(whole), 7):
        shallow, deep = verdicts(tmp_path / "file", whole[:length])
        assert shallow == deep
        assert "cut short" in shallow or "moov" in shallow, length


def test_a_live_recording_may_stop_at_any_byte(tmp_path: Path) -> None:
    whole = WHOLE["matroska, live"]
    for length in range(200, len(whole), 7):
        assert verdicts(tmp_path / "file", whole[:length]) == (None, None), length


def test_the_verdict_says_how_much_is_there(tmp_path: Path) -> None:
    shallow, _ = verdicts(tmp_path / "file", MP4[:-300])
    assert shallow == "it is cut short: its part 'mdat' should have 908 bytes, 608 are there"
    shallow, _ = verdicts(tmp_path / "file", AVI[:200])
    assert shallow == f"it is cut short: it should have {len(AVI)} bytes, 200 are there"


def test_a_recording_without_its_index_is_told(tmp_path: Path) -> None:
    shallow, _ = verdicts(tmp_path / "file", box(b"ftyp") + box(b"mdat", b"d" * 99))
    assert "moov" in shallow and "not finished" in shallow


@pytest.mark.parametrize(
    ("whole", "mark"), [(AVI, FRAMES[:20]), (MKV, BLOCKS[10:40])], ids=["avi", "matroska"]
)
def test_damage_inside_is_seen_when_looked_for(tmp_path: Path, whole: bytes, mark: bytes) -> None:
    at = whole.index(mark) + 60
    damaged = whole[:at] + bytes(range(128, 228)) + whole[at + 100 :]
    shallow, deep = verdicts(tmp_path / "file", damaged)
    assert shallow is None
    place = int(deep.split()[-1].replace(",", ""))
    assert "damaged at byte" in deep and at - 60 <= place < at + 100


def test_any_bytes_get_a_verdict(tmp_path: Path) -> None:
    drawn = random.Random(0)
    for whole in WHOLE.values():
        for _ in range(60):
            content = bytearray(whole[: drawn.randrange(1, len(whole) + 1)])
            for _ in range(drawn.randrange(12)):
                content[drawn.randrange(len(content))] = drawn.randrange(256)
            for verdict in verdicts(tmp_path / "file", bytes(content)):
                assert verdict is None or verdict.startswith("it")


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.mp4"
    with open(path, "wb") as file:
        file.write(box(b"ftyp") + box(b"moov") + struct.pack(">I4sQ", 1, b"mdat", 16 + 2**40))
        file.truncate(2**33)
    assert "cut short" in fault(path)


def test_a_header_that_is_cut_short(tmp_path: Path) -> None:
    asf = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
    for length in range(8):
        shallow, deep = verdicts(tmp_path / "file", asf + bytes(length))
        assert shallow == deep == "it is cut short: its header is missing"


def test_a_part_whose_name_is_not_ascii(tmp_path: Path) -> None:
    content = MP4[: MP4.index(b"mdat") - 4] + struct.pack(">I4s", 1000, b"\xa9nam") + bytes(9)
    shallow, _ = verdicts(tmp_path / "file", content)
    assert shallow == "it is cut short: its part '©nam' should have 1,000 bytes, 17 are there"
