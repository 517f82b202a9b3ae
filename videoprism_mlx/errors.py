"""The errors that this package raises on purpose.

Each error is a `VideoPrismError` and also a suitable built-in error: `except ValueError` catches an
`InputError`. Code that continues after a bad video catches `EXPECTED` and nothing else. A
`TypeError` or `ValueError` that is not a `VideoPrismError` is a bug. It must not be hidden.

It also holds how names and values appear in messages.
"""

import difflib
import operator
import unicodedata
from collections.abc import Iterable, Mapping
from typing import SupportsIndex


class VideoPrismError(Exception):
    """The base of all errors that this package raises on purpose."""


class InputError(VideoPrismError, ValueError):
    """A value that cannot be used. The message says what was expected."""


class InputTypeError(VideoPrismError, TypeError):
    """A value of the wrong type. The message says which type was expected."""


class VideoError(InputError):
    """A video, image or array of frames that cannot be read with the given arguments."""


class CheckpointError(InputError):
    """A checkpoint or model directory that is damaged, incomplete or does not fit."""


class FeatureFileError(InputError):
    """A file that does not contain features in the format that this package writes."""


class OutputError(InputError):
    """An output that cannot be written, because it is in use or contains something else."""


class AlreadyExistsError(VideoPrismError, FileExistsError):
    """An output file or folder that exists already."""


class NotFoundError(VideoPrismError, FileNotFoundError):
    """A file or directory that does not exist. The message says what was expected."""


class LibraryError(InputError):
    """A library of videos that is missing, damaged or does not fit."""


class NoLibraryError(LibraryError):
    """There is no library of videos at this place."""


class TrainingError(InputError):
    """A training run that cannot start or continue."""


class MissingLibraryError(InputError):
    """An optional library that is not installed. The message says how to install it."""


class DownloadError(VideoPrismError, ConnectionError):
    """A download that failed. The message says what to do without a network."""


# Control characters, halves of characters, and ends of lines and paragraphs.
UNSAFE_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")

# What changes the direction of the text that follows.
DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"

# The errors that a bad video or a user's mistake raises. All other errors are bugs.
EXPECTED = (VideoPrismError, OSError)


def suggestion(name: str, known: Iterable[str], instead: Mapping[str, str] | None = None) -> str:
    """The end of an error about an unknown name, which asks for the closest known name.

    It is empty if no known name is close. `instead` has other names for some of them.
    """
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {(instead or {}).get(close[0], close[0])!r}?)" if close else ""


def is_unsafe(character: str) -> bool:
    """Whether a character may move the cursor or hide other text, or cannot be encoded."""
    return unicodedata.category(character) in UNSAFE_CATEGORIES or character in DIRECTIONS


def printable(text: object) -> str:
    r"""A name on one line, with an escape such as \x1b or \udcff for each unsafe character."""
    return "".join(
        one.encode("unicode_escape").decode() if is_unsafe(one) else one for one in str(text)
    )


def printable_lines(text: object) -> str:
    """As `printable`, of a message that may have several lines."""
    return "\n".join(map(printable, str(text).split("\n")))


def excerpt(text: object, most: int = 100) -> str:
    """As `printable`, cut to `most` characters, for messages about damaged files."""
    # Every character may become ten. Repeated spaces do not count.
    whole = printable(" ".join(str(text)[: 10 * most].split()))
    return whole if len(whole) <= most else whole[: most - 1] + "…"


def shown(value: object, most: int = 100) -> str:
    """The `repr` of a value, cut to `most` characters."""
    if isinstance(value, (str, bytes)):
        return excerpt(repr(value[:most]) + ("…" if len(value) > most else ""), most + 3)
    try:
        return excerpt(repr(value), most)
    except (ValueError, RecursionError):  # A number of over 4,300 digits, or deep nesting.
        return f"a {type(value).__name__}"


def whole_number(value: SupportsIndex, name: str) -> int:
    """`value`, an int or a NumPy integer, as an int. Raises InputTypeError for other types."""
    try:
        return operator.index(value)
    except TypeError:
        raise InputTypeError(f"{name} is {value!r}; expected a whole number") from None
