"""The errors that this package raises on purpose.

Every one is a `VideoPrismError`, and also the built-in error that fits it: `except ValueError`
catches an `InputError`. Code that continues after a bad video catches `EXPECTED` and nothing else.
A `TypeError` or `ValueError` that is not a `VideoPrismError` is a bug, and must look like one.
"""

import difflib
import operator
from collections.abc import Iterable
from typing import SupportsIndex


class VideoPrismError(Exception):
    """The base of all errors that this package raises on purpose."""


class InputError(VideoPrismError, ValueError):
    """A value that cannot be used. The message says what was expected."""


class InputTypeError(VideoPrismError, TypeError):
    """A value of the wrong type. The message says which type was expected."""


class VideoError(InputError):
    """A video, image or array of frames that cannot be read as asked."""


class CheckpointError(InputError):
    """A checkpoint or model directory that cannot be used as it is."""


class FeatureFileError(InputError):
    """A file that does not hold features as this package writes them."""


class OutputError(InputError):
    """The result cannot be written there: the place is in use or holds something else."""


class AlreadyExistsError(VideoPrismError, FileExistsError):
    """Something exists already at the place where the result is to be written."""


class NotFoundError(VideoPrismError, FileNotFoundError):
    """A file or directory that does not exist. The message says what was expected."""


class TrainingError(InputError):
    """A training run that cannot start or continue."""


class MissingLibraryError(InputError):
    """An optional library that is not installed. The message says how to install it."""


class DownloadError(VideoPrismError, ConnectionError):
    """A download that failed. The message says what to do without a network."""


# What a bad video, or a user's mistake, raises. Everything else is a bug.
EXPECTED = (VideoPrismError, OSError)


def suggestion(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: a question with the closest known one, or ""."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def whole_number(value: SupportsIndex, name: str) -> int:
    """`value` as an int, also from NumPy's integers. Raises InputTypeError for other types."""
    try:
        return operator.index(value)
    except TypeError:
        raise InputTypeError(f"{name} is {value!r}; expected a whole number") from None
