"""Finding videos and images by their names, in a fixed order."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from videoprism_mlx.errors import InputError, VideoError

# fmt: off
VIDEO_SUFFIXES = {
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m2v", ".ts", ".mts",
    ".m2ts", ".vob", ".flv", ".f4v", ".wmv", ".asf", ".ogv", ".3gp", ".3g2", ".mxf", ".gif",
    ".h264", ".264", ".h265", ".hevc", ".ivf", ".y4m", ".mjpeg", ".divx", ".rm", ".rmvb", ".dv",
}
IMAGE_SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".ppm", ".pgm",
    ".pbm", ".pnm", ".jp2", ".avif", ".exr", ".hdr",
}
# fmt: on


def find_videos(patterns: Sequence[str | Path]) -> dict[str, Path]:
    """The videos in files, folders and glob patterns: the path of each, by a short name.

    A file that is named itself is taken with any ending. In a folder and its subfolders, files with
    the ending of a video are taken. Their short name is the path below the folder; that of other
    files is the file's name.
    """
    found: dict[str, Path] = {}
    for pattern in patterns:
        path = local_path(pattern)
        folder = path if os.path.isdir(path) else None
        if folder:
            videos = [one for one in files_below(folder) if is_video_name(one)]
            if not videos:
                raise VideoError(f"the folder {folder} and its subfolders hold no videos")
        elif not os.path.exists(path) and glob.has_magic(str(path)):
            videos = [Path(one) for one in glob.glob(str(path), recursive=True)]
            videos = [one for one in videos if one.is_file()]
            if not videos:
                raise VideoError(f"no file matches {path}")
        else:  # If the file is missing, reading it will report that.
            videos = [path]
        for video in sorted(videos, key=lambda one: (one.parent, natural_order(one))):
            name = str(video.relative_to(folder)) if folder else video.name
            if os.path.abspath(found.setdefault(name, video)) != os.path.abspath(video):
                raise InputError(
                    f"{found[name]} and {video} would have the same name, {name}; "
                    "give the folder that holds both instead, or use another output for each"
                )
    return found


def local_path(path: str | Path) -> Path:
    """A path, with ~ replaced by the home folder. Raises VideoError if the path is not valid."""
    try:
        is_possible = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        is_possible = False
    if not is_possible:
        raise VideoError(f"{str(path)!a} is not a valid path; correct it")
    return Path(os.path.expanduser(path))


def files_below(folder: Path) -> Iterator[Path]:
    """The files in a folder and in all folders below it. Raises OSError if one cannot be read."""

    def refuse(error: OSError) -> None:
        raise error

    seen = set()
    for root, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        seen.add(os.path.realpath(root))
        # A link may lead to a folder above.
        folders[:] = [one for one in folders if os.path.realpath(f"{root}/{one}") not in seen]
        yield from (path for name in files if (path := Path(root, name)).is_file())


def images_in(folder: Path) -> list[Path]:
    """The images of a folder, sorted by the numbers in their names: frame_2 before frame_10."""
    images = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    images = [path for path in images if not path.name.startswith(".")]
    if not images:
        raise VideoError(f"{folder} holds no images; expected the frames of one video")
    return sorted(images, key=natural_order)


def is_video_name(path: Path) -> bool:
    """Whether a file has the ending of a video and is not hidden."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def natural_order(path: Path) -> list[tuple[int, str]]:
    """A sort key that compares the numbers in names by their values."""
    parts = re.findall(r"\d{1,1000}|\D+", path.name)  # int() refuses over 4,300 digits.
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
