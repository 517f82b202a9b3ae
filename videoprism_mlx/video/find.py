"""Finding videos and images by their names, in a fixed order."""

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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


def find_videos(patterns: Sequence[str | Path], lengthen: bool = False) -> dict[str, Path]:
    """The videos in files, folders and glob patterns: the path of each, by a short name.

    A file that is named itself is taken with any ending. In a folder and its subfolders, files with
    the ending of a video are taken; if there are none, each folder that holds images is a video,
    whose frames they are. The short name is the path below the given folder; that of other videos
    is their own name. If two videos have the same name, that is an error or, with `lengthen`, both
    names get the folders that tell them apart.
    """
    names: dict[str, str] = {}  # The name of each video, by its absolute path.
    paths: dict[str, Path] = {}
    for pattern in patterns:
        for path, name in _found(local_path(pattern)):
            if (absolute := os.path.abspath(path)) not in paths:
                paths[absolute], names[absolute] = path, name
    owner: dict[str, str] = {}
    for absolute, name in names.items():
        if owner.setdefault(name, absolute) != absolute and not lengthen:
            raise InputError(
                f"{paths[owner[name]]} and {paths[absolute]} would have the same name, {name}; "
                "give the folder that holds both instead, or use another output for each"
            )
    return {name: paths[absolute] for absolute, name in told_apart(names).items()}


def _found(path: Path) -> list[tuple[Path, str]]:
    """The videos of a file, folder or glob pattern, sorted, and the short name of each."""
    if os.path.isdir(path):
        files = [*files_below(path)]
        videos = videos_among(files)
        if not videos:
            raise VideoError(
                f"the folder {path} and its subfolders hold no videos, and no images as frames"
            )
        own = os.path.basename(os.path.abspath(path))
        return [(one, own if one == path else str(one.relative_to(path))) for one in videos]
    videos = [path]  # If the file is missing, reading it will report that.
    if not os.path.exists(path) and glob.has_magic(str(path)):
        matches = [Path(one) for one in glob.glob(str(path), recursive=True)]
        videos = [one for one in matches if one.is_file()]
        if not videos:
            folders = [one for one in matches if one.is_dir()]
            inside = [one for folder in folders for one in folder.iterdir() if one.is_file()]
            videos = [one for one in _folders_of_images(inside) if one in matches]
        if not videos:
            raise VideoError(f"no file matches {path}")
    return [(one, one.name) for one in _sorted(videos)]


def videos_among(files: Sequence[Path]) -> list[Path]:
    """The videos among the files below a folder, sorted; if there are none, folders of images."""
    return _sorted([one for one in files if is_video_name(one)] or _folders_of_images(files))


def _sorted(videos: Sequence[Path]) -> list[Path]:
    return sorted(videos, key=lambda one: (one.parent, natural_order(one)))


def _folders_of_images(files: Sequence[Path]) -> list[Path]:
    """The folders that hold the images among some files."""
    return [*dict.fromkeys(one.parent for one in files if is_image_name(one))]


def told_apart(names: Mapping[str, str]) -> dict[str, str]:
    """The names, by absolute paths. Equal ones get as many folders as tell them apart."""
    longer = dict(names)
    while clashing := [name for name, count in Counter(longer.values()).items() if count > 1]:
        for absolute, name in longer.items():
            if name in clashing:
                parts = Path(absolute).parts
                longer[absolute] = os.path.join(*parts[-len(Path(name).parts) - 1 :])
    return longer


def local_path(path: str | Path) -> Path:
    """A path, with ~ replaced by the home folder. Raises VideoError if the path is not valid."""
    try:
        is_possible = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        is_possible = False
    if not is_possible:
        raise VideoError(f"{str(path)!a} is not a valid path; correct it")
    return Path(os.path.expanduser(path))


def refuse(error: OSError) -> None:
    """Raises the error of a folder that cannot be read."""
    raise error


def files_below(folder: Path, unreadable: Callable[[OSError], object] = refuse) -> Iterator[Path]:
    """The files in a folder and in all folders below it.

    `unreadable` is called with the error of a folder or file that cannot be read. By default it is
    raised.
    """
    seen = set()
    for root, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        seen.add(os.path.realpath(root))
        # A link may lead to a folder above.
        folders[:] = [one for one in folders if os.path.realpath(f"{root}/{one}") not in seen]
        for path in (Path(root, name) for name in files):
            try:
                is_file = path.is_file()
            except PermissionError as error:  # All files of the folder are closed.
                unreadable(PermissionError(error.errno, error.strerror, root))
                break
            except OSError as error:
                unreadable(error)
                continue
            if is_file:
                yield path


def images_in(folder: Path) -> list[Path]:
    """The images of a folder, sorted by the numbers in their names: frame_2 before frame_10."""
    images = [path for path in folder.iterdir() if is_image_name(path)]
    if not images:
        raise VideoError(f"{folder} holds no images; expected the frames of one video")
    return sorted(images, key=natural_order)


def is_video_name(path: Path) -> bool:
    """Whether a file has the ending of a video and is not hidden."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def is_image_name(path: Path) -> bool:
    """Whether a file has the ending of an image and is not hidden."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def natural_order(path: Path) -> list[tuple[int, str]]:
    """A sort key that compares the numbers in names by their values."""
    parts = re.findall(r"\d{1,1000}|\D+", path.name)  # int() refuses over 4,300 digits.
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
