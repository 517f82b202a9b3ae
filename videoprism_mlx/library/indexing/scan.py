"""Which files there are: those of the videos below some folders, and what they look like now."""

import dataclasses
import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from videoprism_mlx.errors import EXPECTED, VideoError
from videoprism_mlx.features.encode import one_line
from videoprism_mlx.files.places import is_inside, real_path
from videoprism_mlx.video.find import files_below, find_videos, images_in, local_path, videos_among

# A checksum is that of a whole file up to this many bytes, else of some parts of this length.
WHOLE, PARTS, PART = 2**22, 17, 2**16

# A file may have a time that no column of a table holds: nanoseconds.
LATEST = 2**63 - 1


@dataclasses.dataclass(frozen=True)
class File:
    """A video on disk: a file, or a folder of images. `key` is its path as a library has it."""

    path: Path
    key: str
    size: int
    modified: int  # Nanoseconds.
    inode: tuple[int, int]


@dataclasses.dataclass
class Found:
    """What a scan found. `roots` are the folders and files that were asked for.

    Nothing is known about what lies below `unreadable` folders. `empty` are roots that hold
    nothing at all, as the mount point of a disk that is not there. `absent` paths, which were asked
    for, do not exist. `names` are all names of files that have several.
    """

    files: list[File]
    roots: list[str]
    empty: list[str]
    absent: list[str]
    unreadable: dict[str, str]  # Why, by path.
    problems: dict[str, str]  # Of videos that were named and cannot be used.
    names: dict[tuple[int, int], list[File]]  # By inode.

    def keys(self) -> tuple[str, ...]:
        """The paths of all videos."""
        return tuple(file.key for file in self.files)

    def covers(self, key: str) -> bool:
        """Whether the scan would have found a file with this path."""
        return is_below(key, self.roots) and not is_below(key, self.unreadable)


def scan(paths: Sequence[str | Path]) -> Found:
    """The videos in files, folders and glob patterns, each once, in the order of their paths."""
    found = Found([], [], [], [], {}, {}, {})
    videos: dict[str, Path] = {}  # By path without links.
    for each in paths:
        path = local_path(each)
        key, typed = real_path(path), real(path)
        if os.path.isdir(path):
            found.roots.append(key)
            videos |= {_spelled(real(one), typed, key): one for one in _below(path, found)}
        elif os.path.exists(path):
            found.roots.append(key)
            videos[key] = path
        else:
            matches: list[Path] = []
            with suppress(VideoError):  # No file matches the pattern.
                matches = [*find_videos([path], lengthen=True).values()]
            videos |= {real(one): one for one in matches if os.path.exists(one)}
            found.absent += [] if any(map(os.path.exists, matches)) else [key]
    _look_at(videos, found)
    return found


def _below(folder: Path, found: Found) -> list[Path]:
    """The videos below a folder. Folders that cannot be listed are kept in `found`."""

    def unreadable(error: OSError) -> None:
        name = os.fspath(error.filename or folder)
        found.unreadable[real(name)] = one_line(Path(os.fsdecode(name)), error)

    videos = videos_among([*files_below(folder, unreadable)])
    if not videos and real(folder) not in found.unreadable and not any(os.scandir(folder)):
        found.empty.append(real(folder))
    return videos


def _look_at(videos: dict[str, Path], found: Found) -> None:
    """Looks at each video. Of several names of one file, only the first is kept."""
    seen: dict[tuple[int, int], File] = {}
    for key in sorted(videos):
        try:
            file = look(Path(key), videos[key])
        except FileNotFoundError:  # It has just been removed, or was never there.
            continue
        except EXPECTED as error:
            found.problems[key] = one_line(videos[key], error)
            found.unreadable[key] = found.problems[key]
            continue
        first = seen.setdefault(file.inode, file)
        if first is file or file.inode[1] == 0:
            found.files.append(file)
        else:
            found.names.setdefault(file.inode, [first]).append(file)


def look(path: Path, shown: Path | None = None) -> File:
    """A video as it is now. A folder of images changes when one of them does."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise VideoError(f"{path} is neither a file nor a folder, but a pipe or device")
    if not os.path.isdir(path):
        size, modified = status.st_size, status.st_mtime_ns
    else:
        each = [os.stat(image) for image in images_in(path)]
        size = sum(one.st_size for one in each)
        modified = max(one.st_mtime_ns for one in [status, *each])
    key = os.fspath(path).encode("utf-8", "backslashreplace").decode()
    modified = min(max(modified, -LATEST), LATEST)
    return File(path, key, size, modified, (status.st_dev, status.st_ino))


def checksum(path: Path) -> str:
    """A checksum of the size and of parts of the content, the same for the same content."""
    digest = hashlib.sha256()
    for one in images_in(path) if path.is_dir() else [path]:
        with open(one, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest.update(f"{size} ".encode())
            if size <= WHOLE:
                digest.update(file.read())
                continue
            for part in range(PARTS):
                file.seek((size - PART) * part // (PARTS - 1))
                digest.update(file.read(PART))
    return digest.hexdigest()[:32]


def real(path: str | Path) -> str:
    """The absolute path without symbolic links."""
    return os.path.realpath(path)


def _spelled(path: str, typed: str, root: str) -> str:
    """A path below a root, with the root's own spelling in the place of the one that was typed."""
    return root + path[len(typed) :] if is_below(path, [typed]) else path


def is_gone(key: str) -> bool:
    """Whether there is surely no file at a path: an error of the disk does not say so."""
    try:
        os.stat(key)
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR)
    except ValueError:
        return True
    return False


def is_below(key: str, folders: Iterable[str]) -> bool:
    """Whether a path is one of these, or lies below one of them."""
    return any(is_inside(key, one) for one in folders)
