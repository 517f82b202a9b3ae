"""What can go wrong that is not a bug.

Every error that this package raises on purpose is a `VideoPrismError`, and also the built-in error
that fits it: `except ValueError` catches an `InputError`. Code that goes on after a bad video
catches `EXPECTED` and nothing else. A `TypeError` or `ValueError` that is no `VideoPrismError` is a
bug, and must look like one.
"""

import difflib
from collections.abc import Iterable


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
    """A place where the result cannot be written: it is in use or holds something else."""


class TrainingError(InputError):
    """A training run that cannot start or continue."""


class MissingLibraryError(InputError):
    """An optional library that is not installed. The message says how to install it."""


class DownloadError(VideoPrismError, ConnectionError):
    """Something that could not be fetched. The message says how to do without a network."""


# What one bad video or a user's mistake raises. Anything else is a bug.
EXPECTED = (VideoPrismError, OSError)


def suggestion(name: str, known: Iterable[str]) -> str:
    """A question with the known name that is closest to a wrong one, or nothing."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
