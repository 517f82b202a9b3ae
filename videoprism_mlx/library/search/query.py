"""What is searched for: texts, videos and pictures, with weights, added and subtracted.

Shapes: D width of an embedding.
"""

import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from videoprism_mlx.errors import InputError, InputTypeError, NotFoundError
from videoprism_mlx.files.places import user_path
from videoprism_mlx.video.find import IMAGE_SUFFIXES, VIDEO_SUFFIXES

SIGNS = {"+": 1.0, "-": -1.0}

# A number and a colon before a part are its weight.
WEIGHT = re.compile(r"(\d+\.?\d*|\.\d+):\s*(.*)", re.DOTALL)

# What stands after a path: from when to when.
SPAN = re.compile(r"(.+)@([\d.:]+)-([\d.:]*)", re.DOTALL)

# A whole query whose parts are so close to cancelling one another says nothing.
LEAST_LENGTH = 1e-3

Vector = npt.NDArray[np.float32]


class Part(NamedTuple):
    """A part of a query: a text, or a video with the span to use; and its weight, with its sign."""

    weight: float
    text: str | None = None
    path: Path | None = None
    start: float | None = None
    end: float | None = None


def parse(query: str | Sequence[str], files: bool = True) -> list[Part]:
    """The parts of a query. Raises an error that names the part that is wrong.

    A query is one string, in which + and - stand between spaces, or several words, of which some
    are + or -. A part that begins with `2:` counts twice. It is a path if it begins with `./`,
    `../`, `/` or `~/`, or if it ends as the name of a video or image does; `@12.5-16` after it is
    the span to use, in seconds. Everything else is text. Without `files`, as for a query that
    comes from elsewhere, all parts are text, and no file is looked for.
    """
    parts: list[Part] = []
    sign: float | None = None
    said: list[str] = []

    def finish() -> None:
        nonlocal sign, said
        if not said:
            if sign is not None:
                raise InputError(f"a + or - of the query {shown(query)} has no part after it")
            return
        parts.append(parse_part(" ".join(said), 1.0 if sign is None else sign, files))
        sign, said = None, []

    for word in split(query, files):
        if word in SIGNS:
            finish()
            sign = SIGNS[word]
        else:
            said.append(word)
    finish()
    if not parts:
        raise InputError("the query is empty; expected words, or the path of a video or image")
    return parts


def split(query: str | Sequence[str], files: bool = True) -> list[str]:
    """The words of a query, some of which are + or -."""
    if not isinstance(query, str):
        if not isinstance(query, Iterable):
            raise InputTypeError(f"the query is {query!r}; expected a string")
        words = list(query)
        for word in words:
            if not isinstance(word, str):
                raise InputTypeError(f"{word!r} is a part of the query; expected a string")
        if len(words) != 1:
            return [stripped for word in words if (stripped := word.strip())]
        [query] = words
    whole = query.strip()
    if not whole:
        return []
    # The name of a file may have a - between spaces.
    if files and names_path(whole) and is_there(whole):
        return [whole]
    pieces = re.split(r"(?:^|(?<=\s))([+-])(?=\s|$)", whole)
    return [piece.strip() for piece in pieces if piece.strip()]


def shown(query: str | Sequence[str]) -> str:
    """A query as an error names it."""
    return repr(query if isinstance(query, str) else " ".join(query))


def parse_part(said: str, sign: float, files: bool = True) -> Part:
    """One part of a query."""
    weight = 1.0
    if match := WEIGHT.fullmatch(said):
        weight, rest = float(match[1]), match[2].strip()
        if not 0 < weight < math.inf or not rest:
            raise InputError(
                f"{said!r} is a part of the query; expected a weight above 0, a colon and what it "
                "is the weight of, such as 2:surfing"
            )
        said = rest
    if not files or not names_path(said):
        return Part(sign * weight, text=said)
    path, start, end = located(said)
    if not is_there(path):
        raise NotFoundError(
            f"there is no file {path}, which the query names; a part that begins with ./, ../, / "
            "or ~/, or ends as a video or image does, is a path"
        )
    return Part(sign * weight, path=path, start=start, end=end)


def names_path(said: str) -> bool:
    """Whether a part of a query is a path."""
    if said.startswith(("./", "../", "/", "~/")) or said in (".", ".."):
        return True
    names = (said, said.rpartition("@")[0])
    return any(Path(name).suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES for name in names)


def is_there(path: str | Path) -> bool:
    """Whether there is a file. A text may be too long for the name of one."""
    return os.path.exists(user_path(path))


def located(said: str) -> tuple[Path, float | None, float | None]:
    """The path of a part, and the span after it."""
    name, at, span = said.rpartition("@")
    if not at or is_there(said) or not (names_path(name) or is_there(name)):
        return user_path(said), None, None
    match = SPAN.fullmatch(said)
    if match is None:
        raise InputError(
            f"{said!r} is a part of the query, and {span!r} is no span; expected one such as "
            "@12.5-16 or @1:05-1:20"
        )
    start, end = seconds(match[2], said), seconds(match[3], said) if match[3] else None
    if end is not None and end <= start:
        raise InputError(f"{said!r} is a part of the query; its span ends before it begins")
    return user_path(match[1]), start, end


def seconds(text: str, said: str) -> float:
    """A time as seconds: 75.5, 1:15.5 or 0:01:15.5."""
    try:
        numbers = [float(one) for one in text.split(":")]
        if len(numbers) > 3:
            raise ValueError
    except ValueError:
        raise InputError(
            f"{said!r} is a part of the query, and {text!r} is no time; expected one such as 16 or "
            "1:05.5"
        ) from None
    total = 0.0
    for number in numbers:
        total = 60 * total + number
    return total


def combined(parts: Sequence[Part], embed: Callable[[Part], Vector]) -> Vector:
    """The weighted sum of the embeddings (D,) of the parts, of length one.

    `embed` gives that of a part, of length one. Raises InputError if they cancel one another.
    """
    total = np.sum([part.weight * embed(part).astype(np.float64) for part in parts], axis=0)
    length = float(np.linalg.norm(total))
    if length < LEAST_LENGTH * sum(abs(part.weight) for part in parts):
        raise InputError("the parts of the query cancel one another; change one of them")
    vector: Vector = (total / length).astype(np.float32)
    return vector
