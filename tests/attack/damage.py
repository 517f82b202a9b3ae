"""Damage, drawn from a seed: what a bad disk, a broken copy or an attacker does to a file."""

import random
import re
from collections.abc import Callable

TYPES = (
    (b"<f4", b"<f2"),
    (b"<f4", b">f4"),
    (b"<f4", b"<i4"),
    (b"<f8", b"<f4"),
    (b"F32", b"I32"),
    (b"F32", b"F16"),
    (b"F16", b"F32"),
    (b"False", b"True "),
    (b"true", b"null"),
)

Damage = Callable[[bytes, random.Random], bytes]


def flip_bits(content: bytes, draw: random.Random) -> bytes:
    """One to eight bits."""
    damaged = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        damaged[place(content, draw)] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def set_bytes(content: bytes, draw: random.Random) -> bytes:
    """A few bytes, to values that formats give a meaning."""
    damaged = bytearray(content)
    start = place(content, draw)
    for at in range(start, min(start + draw.choice((1, 2, 4, 8)), len(content))):
        damaged[at] = draw.choice((0, 1, 2, 9, 32, 127, 128, 254, 255, draw.randrange(256)))
    return bytes(damaged)


def cut(content: bytes, draw: random.Random) -> bytes:
    """The end, or the beginning."""
    at = place(content, draw)
    return content[:at] if draw.random() < 0.8 else content[at:]


def take_out(content: bytes, draw: random.Random) -> bytes:
    """A piece in the middle is missing, or zero as in a download that was not finished."""
    start = place(content, draw)
    end = start + draw.choice((1, 2, 7, 64, 512))
    return content[:start] + b"\0" * (end - start) * draw.randrange(2) + content[end:]


def put_in(content: bytes, draw: random.Random) -> bytes:
    """More bytes: noise, a piece of the file itself, or something after the end."""
    start, end = sorted((place(content, draw), place(content, draw)))
    piece = draw.choice((draw.randbytes(draw.choice((1, 3, 100))), content[start : start + 300]))
    at = draw.choice((start, end, len(content)))
    return content[:at] + piece + content[at:]


def swap_types(content: bytes, draw: random.Random) -> bytes:
    """A type or a flag in a header becomes another one."""
    usable = [pair for pair in TYPES if pair[0] in content]
    if not usable:
        return flip_bits(content, draw)
    old, new = draw.choice(usable)
    spot = draw.choice([found.start() for found in re.finditer(re.escape(old), content)])
    return content[:spot] + new + content[spot + len(old) :]


def change_numbers(content: bytes, draw: random.Random) -> bytes:
    """A decimal number becomes absurd."""
    numbers = list(re.finditer(rb"\d+", content))
    if not numbers:
        return set_bytes(content, draw)
    found = draw.choice(numbers)
    absurd = (b"0", b"-1", b"2147483647", b"9" * 20, b"9" * 400, b"9" * 5000, b"1e400", b"NaN",
              b"[" * 100_000, b"true", b'"7"', b"{}", b"1.5")  # fmt: skip
    return content[: found.start()] + draw.choice(absurd) + content[found.end() :]


DAMAGES: tuple[Damage, ...] = (
    flip_bits,
    flip_bits,
    set_bytes,
    cut,
    take_out,
    put_in,
    swap_types,
    change_numbers,
)


def place(content: bytes, draw: random.Random) -> int:
    """Somewhere in the content, more often at its ends, where headers are."""
    ends = min(len(content), 600)
    where = draw.random()
    if where < 0.3:
        return draw.randrange(ends)
    if where < 0.5:
        return len(content) - 1 - draw.randrange(ends)
    return draw.randrange(len(content))


def damaged(content: bytes, kind: str, number: int) -> bytes:
    """Damage number `number` of a file of this kind. It differs from the content."""
    draw = random.Random(f"{kind} {number}")
    while (result := draw.choice(DAMAGES)(content, draw)) == content:
        pass
    return result
