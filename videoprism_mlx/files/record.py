"""Records: the settings that something was made with, and how two records differ."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from videoprism_mlx.errors import abridged, excerpt, shown

# Settings by name, nested as in a JSON object.
Record = Mapping[str, Any]

RECORD_FILE = "record.json"

# Settings that may differ although the result is the same.
INCIDENTAL = {"version", "model.name", "videos", "texts"}


# What a difference means that nobody would guess.
MEANING = {
    "preprocessing.reader": " (earlier versions decoded video files with OpenCV, whose colours "
    "differ)",
    "model.precision": " (of float32 matrix products: MLX_ENABLE_TF32 decides)",
}


def own_version() -> str:
    """The version of this package."""
    from importlib.metadata import version  # Imported here, because it is slow.

    return version("videoprism_mlx")


def made_with(**settings: Any) -> dict[str, Any]:
    """A record: the version of this package, then the settings."""
    return {"version": own_version(), **settings}


def as_json(value: Any, indent: int | None = 2, ascii: bool = True) -> str:
    """The JSON text of a value. JSON has no NaN and no infinity: they become null.

    Without `ascii`, characters stay as they are, unless a file's name has bytes that are not UTF-8.
    """
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=ascii, allow_nan=False)
    except ValueError:
        return as_json(_finite(value), indent, ascii)
    try:
        text.encode()
    except UnicodeEncodeError:
        return as_json(value, indent)
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def digest(value: Any) -> str:
    """A short checksum of any value that JSON can hold."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def flat(record: Record, prefix: str = "") -> dict[str, Any]:
    """Nested settings as one mapping with dotted names."""
    result: dict[str, Any] = {}
    for key, value in record.items():
        nested = isinstance(value, Mapping)
        result |= flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return result


def phrase(value: Any) -> str:
    """A setting as it is printed: in quotation marks if it is not one word."""
    is_word = not isinstance(value, str) or re.fullmatch(r"\w[\w.-]*", value)
    return abridged(value) if is_word else shown(value)


def differences(there: Record, now: Record) -> list[str]:
    """A phrase for each setting in which an earlier record and the present one differ."""
    there, now = flat(there), flat(now)
    return [
        f"{excerpt(key)} was {phrase(there.get(key))} and is now {phrase(now.get(key))}"
        f"{MEANING.get(key, '')}"
        for key in sorted(there.keys() | now.keys())
        if key not in INCIDENTAL and there.get(key) != now.get(key)
    ]
