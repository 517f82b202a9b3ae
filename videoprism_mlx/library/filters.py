"""Which videos of a library a search looks at."""

import dataclasses
import math
import os
from datetime import datetime
from pathlib import Path

from videoprism_mlx.errors import InputError, InputTypeError
from videoprism_mlx.files.places import real_path, user_path
from videoprism_mlx.library.table import OK, quoted

# How a date may be written, the short forms for the beginning of a year, month or day.
DATES = ("%Y", "%Y-%m", "%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M")


@dataclasses.dataclass(frozen=True)
class Where:
    """What a video must fit. None fits all.

    `folder` is a folder, with subfolders, or a file. `after` and `before` are seconds since 1970:
    a video of the very second is after it, and not before it. `longer` and `shorter` are seconds
    of duration, both included.
    """

    folder: str | Path | None = None
    after: float | None = None
    before: float | None = None
    longer: float | None = None
    shorter: float | None = None

    def __post_init__(self) -> None:
        for name in ("after", "before", "longer", "shorter"):
            check_number(name, getattr(self, name))
        for low, high in (("after", "before"), ("longer", "shorter")):
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least > most:
                raise InputError(
                    f"{low} is {least:g} and {high} is {most:g}: no video fits both; "
                    "correct one of them"
                )

    def condition(self) -> str:
        """The SQL condition on the table of videos. Only videos that can be searched fit it."""
        parts = [f"status = {quoted(OK)}"]
        if self.folder is not None:
            parts.append(below(self.folder))
        for name, test in (
            ("after", "date >="),
            ("before", "date <"),
            ("longer", "duration >="),
            ("shorter", "duration <="),
        ):
            if (value := getattr(self, name)) is not None:
                parts.append(f"{test} {float(value)!r}")
        return " AND ".join(parts)

    @property
    def fits_all(self) -> bool:
        """Whether every video fits."""
        return self == Where()


def below(folder: str | Path) -> str:
    """The SQL condition of the videos in a folder and its subfolders, or of a file."""
    path = real_path(user_path(folder))
    if path != path.encode(errors="replace").decode():
        raise InputError(f"{path!a} is not UTF-8, so no library holds it; rename it")
    inside = path.rstrip(os.sep) + os.sep
    return f"(path = {quoted(path)} OR starts_with(path, {quoted(inside)}))"


def check_number(name: str, value: object) -> None:
    """Raises InputError or InputTypeError unless this is a finite number, or None."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputTypeError(f"{name} is {value!r}, a {type(value).__name__}; expected seconds")
    if not math.isfinite(value):
        raise InputError(f"{name} is {value!r}; expected a number of seconds")


def parse_date(text: str) -> float:
    """The second since 1970 at which a date begins, in local time."""
    for form in DATES:
        try:
            return datetime.strptime(text.strip(), form).timestamp()
        except (ValueError, OverflowError, OSError):
            continue
    raise InputError(
        f"{text!r} is not a date; expected one such as 2024, 2024-05, 2024-05-31 or "
        "2024-05-31T18:30"
    )
