"""The errors that this package raises on purpose.

Each error is a `VideoPrismError` and also a suitable built-in error: `except ValueError` catches an
`InputError`. Code that continues after a bad video catches `EXPECTED` and nothing else. A
`TypeError` or `ValueError` that is not a `VideoPrismError` is a bug. It must not be hidden.

It also holds how names and values appear in messages.
"""

import difflib
import errno
import operator
import os
import unicodedata
from collections.abc import Iterable, Mapping
from typing import SupportsIndex


class VideoPrismError(Exception):
    """The base of all errors that this package raises on purpose. Its text is one line."""

    def __str__(self) -> str:
        return printable(super().__str__())


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

    def __str__(self) -> str:
        return super().__str__() if self.errno is None else printable(in_words(self))


class NotFoundError(VideoPrismError, FileNotFoundError):
    """A file or directory that does not exist. The message says what was expected."""

    def __str__(self) -> str:
        return super().__str__() if self.errno is None else printable(in_words(self))


class LibraryError(InputError):
    """A library of videos that is missing, damaged or does not fit."""


class NoLibraryError(LibraryError):
    """There is no library of videos at this place."""


class TrainingError(InputError):
    """A training run that cannot start or continue."""


class RankError(VideoPrismError, RuntimeError):
    """Ranks of a launcher that cannot work together."""


class ElsewhereError(RankError):
    """An error that another rank has told already, so that this one need not."""


class MissingLibraryError(InputError):
    """An optional library that is not installed. The message says how to install it."""


class WorkerError(VideoPrismError, RuntimeError):
    """A worker that cannot be used: it has another model, or does not see the videos."""


class DeadlyError(WorkerError):
    """A video during which two workers died."""


class NetworkError(VideoPrismError, ConnectionError):
    """Something that a server did not do. `reason` is the part of the message that says why."""

    verb = "reach"
    reason = ""


class DownloadError(NetworkError):
    """A download that failed. The message says what to do without a network.

    `is_missing_file` says that the repository is there, and the file is not.
    """

    verb = "fetch"
    is_missing_file = False


class UploadError(NetworkError):
    """An upload that failed, of which nothing is visible. The message says what to do."""

    verb = "upload"


# Control characters, halves of characters, and ends of lines and paragraphs.
UNSAFE_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")

# What changes the direction of the text that follows.
DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"

# The errors that a bad video or a user's mistake raises. All other errors are bugs.
EXPECTED = (VideoPrismError, OSError)

# What the system's errors mean. Others are in the words of the system.
REASONS = {
    errno.ENOENT: "there is no such file or folder",
    errno.EEXIST: "there is such a file or folder already",
    errno.EACCES: "there is no permission to read or write it",
    errno.EPERM: "the system does not permit it",
    errno.EISDIR: "it is a folder; expected a file",
    errno.ENOTDIR: "it is a file, or lies below one; expected a folder",
    errno.ENOTEMPTY: "the folder is not empty",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your share of the disk is used up",
    errno.EFBIG: "the file is too large for the disk",
    errno.EROFS: "the disk can only be read",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "it is a link that leads back to itself",
    errno.EIO: "the disk failed to read or write it",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open",
}


def in_words(error: BaseException) -> str:
    """The message of an error. Of a system's error, the path and the reason, without a number."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    system = os.strerror(error.errno)
    reason = error.strerror or system
    if reason == system:
        reason = REASONS.get(error.errno, reason[:1].lower() + reason[1:])
    given = [one for one in (error.filename, error.filename2) if one is not None]
    paths = [os.fsdecode(one) if isinstance(one, bytes) else str(one) for one in given]
    return f"{' to '.join(paths)}: {reason}" if paths else reason


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


def abridged(value: object) -> str:
    """As `excerpt`, but of a checksum only the first digits."""
    text = str(value)
    is_checksum = len(text) == 64 and all(digit in "0123456789abcdef" for digit in text)
    return f"SHA-256 {text[:12]}…" if is_checksum else excerpt(text)


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun, such as `1 video` and `2,000 videos`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def are(count: int, total: int | None = None) -> str:
    """The verb after `count` things, or after `count` of `total` things: `is` or `are`."""
    return "is" if 1 in (count, total) else "are"


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
