"""The checksum of a JSON object, which the object holds itself.

It is that of the values, so that spaces and the order of keys make no difference.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videoprism_mlx.errors import InputError, shown
from videoprism_mlx.files.record import as_json

CHECKSUM = "crc32"

# The checksum of another file is compared with that file, and may be removed from an object.
OF_OTHERS = ("weights_sha256",)


def with_checksum(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, and their checksum under CHECKSUM."""
    return {**values, CHECKSUM: checksum(json.loads(as_json(dict(values))))}


def is_intact(found: Mapping[str, Any]) -> bool:
    """Whether values that were read have their checksum. Earlier versions wrote none."""
    return CHECKSUM not in found or found[CHECKSUM] == checksum(found)


def require_checksum(found: Mapping[str, Any], path: Path, error: type[InputError]) -> None:
    """Raises `error` unless the values read from `path` have their checksum, or hold none."""
    if not is_intact(found):
        raise error(
            f"{path} is damaged or has been changed: the CRC-32 of its content is "
            f"{checksum(found)}, and {CHECKSUM!r} in it is {shown(found[CHECKSUM], 20)}. Copy, "
            f"download or write it again; if the change is yours, remove {CHECKSUM!r} from it"
        )


def checksum(values: Mapping[str, Any]) -> str:
    """The checksum of values as they are read from JSON."""
    own = {key: value for key, value in values.items() if key not in (CHECKSUM, *OF_OTHERS)}
    return f"{zlib.crc32(json.dumps(own, sort_keys=True).encode()):08x}"
