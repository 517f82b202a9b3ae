"""The block sizes that `videoprism-mlx check --tune` found fastest, kept for each machine.

They lie in the cache folder. Delete the file to go back to the defaults.
"""

import functools
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from videoprism_mlx.errors import InputError, in_words
from videoprism_mlx.files.places import cache_directory
from videoprism_mlx.files.reading import read_json_object
from videoprism_mlx.runtime import memory
from videoprism_mlx.runtime.limits import available_cores

FILE = "tuning.json"

# Of the file. A file of another format is not used, and the next tuning replaces it.
FORMAT = 1

logger = logging.getLogger(__name__)


def path() -> Path:
    """Where the block sizes are kept."""
    return cache_directory() / FILE


def machine(kind: mx.DeviceType) -> str:
    """What a block size was measured on: the device, its memory, the cores and MLX."""
    told = memory.device_info(kind)
    chip = told.get("device_name") or told.get("architecture") or "unknown"
    total = round((memory.total_memory(kind) or 0) / 1e9)
    cores = "" if kind == mx.gpu else f", {available_cores()} cores"
    return f"{kind.name}, {chip}, {total} GB{cores}, MLX {vars(mx)['__version__']}"


@functools.cache
def kept(kind: mx.DeviceType) -> dict[str, float | None]:
    """Megabytes for each type that was measured on this machine; None where the default stays.

    The file is read once. One that cannot be used is ignored: a model runs without it.
    """
    try:
        entry = read().get(machine(kind), {})
        return {str(dtype): valid(megabytes) for dtype, megabytes in entry.items()}
    except (OSError, RuntimeError, InputError, TypeError, ValueError, AttributeError) as error:
        logger.warning(
            "the tuned block sizes are not used: %s. Delete the file, or run `videoprism-mlx check "
            "--tune` again.",
            in_words(error),
        )
        return {}


def read() -> dict[str, Any]:
    """The entries of the file, by machine: none if there is no file."""
    try:
        stored = read_json_object(path())
    except FileNotFoundError:
        return {}
    if stored.get("format") != FORMAT:
        raise ValueError(f"{path()} is not of this version")
    entries = stored.get("machines")
    if not isinstance(entries, dict):
        raise ValueError(f"{path()} is damaged")
    return entries


def valid(megabytes: Any) -> float | None:
    """A block size as it was read. Raises ValueError if it is none."""
    if megabytes is None:
        return None
    if isinstance(megabytes, bool) or not isinstance(megabytes, (int, float)):
        raise ValueError(f"{path()} has a block size of {megabytes!r}")
    if not 0 < megabytes < math.inf:
        raise ValueError(f"{path()} has a block size of {megabytes!r}")
    return float(megabytes)


def keep(kind: mx.DeviceType, blocks: Mapping[str, float | None]) -> Path:
    """Writes the block size for each type, beside those of other machines. Returns the file."""
    from videoprism_mlx.files.atomic import new_file

    entries: dict[str, Any] = {}
    try:
        entries = read()
        entry = {name: valid(each) for name, each in entries.get(machine(kind), {}).items()}
    except (OSError, ValueError, AttributeError):
        entry = {}  # What cannot be read is of no use.
    entries[machine(kind)] = {**entry, **blocks}
    with new_file(path(), replace=True) as partial:
        stored = {"format": FORMAT, "machines": entries}
        partial.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
    kept.cache_clear()
    return path()
