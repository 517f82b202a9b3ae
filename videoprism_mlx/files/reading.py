"""Reading small files that may be anything: a pipe, a device, far too large, or damaged."""

import json
import os
import stat
from collections.abc import Iterable
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

from videoprism_mlx.errors import InputError, counted, excerpt
from videoprism_mlx.files.places import require_path

# Files that are read as a whole may have so many bytes.
MOST_BYTES = 2**29

# JSON that is nested deeper is damaged: nothing here needs more than ten levels.
MOST_LEVELS = 64


def open_regular(path: str | Path, error: type[InputError] = InputError) -> BufferedReader:
    """The open file. Raises `error` if it is a folder, a pipe or a device, which could hang."""
    require_path(path)
    # Opening a pipe would otherwise wait until something writes to it.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        what = "a directory" if stat.S_ISDIR(mode) else "no regular file"
        raise error(f"{path} is {what}; expected a file")
    return os.fdopen(descriptor, "rb")


def read_bytes(path: str | Path, error: type[InputError] = InputError) -> bytes:
    """The content of a file. Raises `error` if it is no regular file, or too large."""
    with open_regular(path, error) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MOST_BYTES:
            raise error(f"{path} has {counted(size, 'byte')}; expected at most {MOST_BYTES:,}")
        return file.read()


def read_text(path: str | Path, error: type[InputError] = InputError) -> str:
    """The text of a file in UTF-8, without a byte order mark, and with \\n between lines."""
    try:
        text = read_bytes(path, error).decode("utf-8-sig")
    except UnicodeDecodeError as wrong:
        raise error(f"{path} is not text in UTF-8 ({wrong})") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: str | Path, error: type[InputError] = InputError) -> Any:
    """The content of a JSON file. Raises `error` if it is not JSON."""
    return parse_json(read_text(path, error), path, error)


def read_json_object(path: str | Path, error: type[InputError] = InputError) -> dict[str, Any]:
    """The content of a JSON file that holds an object. Raises `error` if it does not."""
    found = read_json(path, error)
    if not isinstance(found, dict):
        raise error(f"{path} holds a {type(found).__name__}; expected an object")
    return found


def parse_json(text: str, where: object, error: type[InputError] = InputError) -> Any:
    """The value of a JSON text. `error` begins with `where`. NaN and infinity are not JSON."""
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        if nests_deeply([value]):
            raise ValueError(f"it is nested more than {MOST_LEVELS} levels deep")
    except RecursionError:
        raise error(f"{where} is not JSON (it is nested too deeply)") from None
    except ValueError as wrong:
        raise error(f"{where} is not JSON ({excerpt(wrong)})") from None
    return value


def nests_deeply(values: Iterable[Any]) -> bool:
    """Whether lists and objects in JSON values are nested deeper than MOST_LEVELS."""
    level = list(values)
    for _ in range(MOST_LEVELS + 1):
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return True


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is no number")


def _finite(digits: str) -> float:
    number = float(digits)
    if number - number != 0:
        raise ValueError(f"it holds the number {digits[:40]}, which is too large")
    return number
