"""Where a worker finds the files that the command sees: under the same path, or a mapped one."""

import dataclasses
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from videoprism_mlx.errors import InputError, InputTypeError, WorkerError, counted, shown
from videoprism_mlx.files.places import is_inside, require_path, user_path
from videoprism_mlx.video.find import images_in

# For a path as the command sees it, what it is on the workers. Several, if they differ.
Mapped = Mapping[str, str | Sequence[str]]

# How it is written on the command line.
EXAMPLE = "/Volumes/nas=/mnt/nas"


@dataclasses.dataclass(frozen=True)
class Places:
    """Which paths on a worker stand for the folders that the command sees."""

    pairs: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @classmethod
    def of(cls, mapping: Mapped | None) -> "Places":
        """The places of a mapping {from: to} or {from: [to, ...]}."""
        if mapping is None:
            return cls()
        if not isinstance(mapping, Mapping):
            raise InputTypeError(
                f"mapping is {shown(mapping)}; expected a dictionary, such as "
                '{"/Volumes/nas": "/mnt/nas"}'
            )
        pairs: dict[str, list[str]] = {}
        for start, ends in mapping.items():
            listed = [ends] if isinstance(ends, (str, Path)) else list(ends)
            kept = pairs.setdefault(checked_start(start), [])
            kept += [checked_end(end, start) for end in listed]
        return cls(tuple((start, tuple(dict.fromkeys(ends))) for start, ends in pairs.items()))

    def candidates(self, path: str | Path) -> list[str]:
        """Where a file may be on a worker, the likeliest place first.

        The longest folder of the mapping that the path lies in is replaced. The path itself comes
        last.
        """
        path = os.path.abspath(path)
        inside = [pair for pair in self.pairs if is_inside(path, pair[0])]
        if not inside:
            return [path]
        start, ends = max(inside, key=lambda pair: len(pair[0]))
        rest = os.path.relpath(path, start)
        replaced = [os.path.normpath(os.path.join(os.path.expanduser(to), rest)) for to in ends]
        return [*dict.fromkeys([*replaced, path])]

    def find(self, path: str | Path, size: int | None = None) -> Path:
        """The file or folder on this machine that stands for `path`.

        Raises WorkerError if there is none or, with `size` in bytes, none of that size.
        """
        places = self.candidates(path)
        other: tuple[str, int] | None = None
        for place in places:
            if os.path.exists(place):
                found = None if size is None else size_of(Path(place))
                if found == size:
                    return Path(place)
                other = other or (place, found or 0)
        if other is not None and size is not None:
            raise WorkerError(
                f"{other[0]} has {counted(other[1], 'byte')} on {platform.node()}, and {path} has "
                f"{size:,} where the command runs; map its folder to the one that holds the same "
                "files (--map)"
            )
        looked = "" if places == [str(path)] else f" (nor {' nor '.join(places[:-1])})"
        raise WorkerError(
            f"there is no {path} on {platform.node()}{looked}; mount that folder, "
            f"say with --map where it is (--map {EXAMPLE}), or send the files (--send)"
        )


def parse_mapping(texts: Iterable[str]) -> dict[str, list[str]]:
    """The mapping that texts of the form FROM=TO stand for."""
    mapping: dict[str, list[str]] = {}
    for text in texts:
        start, equals, end = text.partition("=")
        if not (start and equals and end):
            raise InputError(f"--map is {shown(text)}; expected FROM=TO, such as {EXAMPLE}")
        mapping.setdefault(start, []).append(end)
    return mapping


def checked_start(path: str | Path) -> str:
    """The folder as an absolute path of the machine that the command runs on."""
    require_path(path)
    if not str(path):
        raise InputError(f"the mapping has an empty path; expected folders, such as {EXAMPLE}")
    return os.path.abspath(user_path(path))


def checked_end(path: str | Path, start: str | Path) -> str:
    """The path on the workers. Raises InputError unless it is absolute."""
    require_path(path)
    if not str(path).startswith(("/", "~")):
        raise InputError(
            f"{start} is mapped to {shown(str(path))}; expected an absolute path on the workers, "
            f"such as {EXAMPLE}"
        )
    return str(path)


def renamed(error: Exception, there: Path | None, path: str) -> Exception:
    """The error about a file on a worker, with the path that it has where the command runs."""
    if there is None or str(there) == path:
        return error
    if isinstance(error, OSError) and error.errno is not None:
        name = None if error.filename is None else str(error.filename).replace(str(there), path)
        return type(error)(error.errno, error.strerror, name)
    return type(error)(str(error).replace(str(there), path))


def size_of(path: Path) -> int:
    """The bytes of a file, or of the images in a folder."""
    if path.is_dir():
        return sum(os.stat(image).st_size for image in images_in(path))
    return os.stat(path).st_size
