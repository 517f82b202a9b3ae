"""What is kept on this machine to be used again, and removing what nobody needs.

Libraries, outputs and models in folders of their own are the user's, and not looked at.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from videoprism_mlx.convert import transformers
from videoprism_mlx.errors import InputError
from videoprism_mlx.files import places
from videoprism_mlx.files.atomic import is_left, is_partial
from videoprism_mlx.files.reading import read_json
from videoprism_mlx.models import MODEL_CLASSES, RELEASES
from videoprism_mlx.weights.adapters import ADAPTER_CONFIG_FILE
from videoprism_mlx.weights.catalogue import size_of
from videoprism_mlx.weights.directory import CONFIG_FILE
from videoprism_mlx.weights.hub import converted_directory

# The folders of the cache: what is in them, and how it comes back.
FOLDERS = {
    "models": "models, converted",
    "tokenizers": "tokenizers",
    "features": "features for trainings of classifiers",
    "frames": "frames for trainings of video-text models",
    "embeddings": "embeddings for evaluations",
    "previews": "previews of the page",
    "clips": "the clip of `check --model`",
    "sent": "models that other machines have sent",
    "checked": "notes of weights that were found intact",
    "openblas": "OpenBLAS for Linux",
}

# The kind of what is in Hugging Face's cache.
HUB = "hub"

# What a table calls each kind.
TITLES = {**FOLDERS, HUB: "from the Hub"}


class Kept(NamedTuple):
    """Something that is kept: a folder, a model, or a commit of a repository in HF's cache.

    `kind` is one of TITLES. `why` says why it is not needed any more; None if it
    may be needed.
    """

    kind: str
    name: str
    path: Path
    bytes: int
    why: str | None = None


def cache_contents() -> list[Kept]:
    """What is kept in the cache of this package and, of ours, in Hugging Face's.

    What `prune_cache` removes has a reason, `why`, and is listed on its own.
    """
    return [*own_contents(places.cache_directory()), *hub_contents()]


def prune_cache(listed: Iterable[Kept] | None = None) -> list[Kept]:
    """Removes what is not needed any more, of what `cache_contents` has listed. Returns it.

    That is what killed runs have left, official checkpoints whose converted model is here,
    converted models of Transformers that have changed since or are gone, and notes about files that
    are gone.
    """
    listed = cache_contents() if listed is None else listed
    unneeded = [kept for kept in listed if kept.why is not None]
    for kept in unneeded:
        if kept.kind == HUB:
            continue
        if kept.path.is_dir():
            shutil.rmtree(kept.path)
        else:
            kept.path.unlink(missing_ok=True)
    remove_commits([kept for kept in unneeded if kept.kind == HUB])
    return unneeded


def own_contents(cache: Path) -> Iterator[Kept]:
    """What is in the cache of this package: models one by one, and the other folders as a whole."""
    for kind in FOLDERS:
        folder = cache / kind
        unneeded = list(leftovers(folder))
        yield from unneeded
        for path in parts(folder):
            gone = sum(kept.bytes for kept in unneeded if path in kept.path.parents)
            if size := size_of(path) - gone:
                name, why = path.name, None
                if path.name.startswith(transformers.KEPT):
                    name, why = of_transformers(path)
                yield Kept(kind, name, path, size, why)


def parts(folder: Path) -> list[Path]:
    """What is listed of a folder of the cache: each model, and other folders as a whole."""
    if folder.name != "models" or not folder.is_dir():
        return [folder]
    return [path for path in sorted(folder.iterdir()) if not is_partial(path)]


def of_transformers(path: Path) -> tuple[str, str | None]:
    """What a converted model of Transformers was made from, and why it is not needed any more."""
    try:
        source = read_json(path / CONFIG_FILE)["source"]
        repository, directory = source.get("repository"), source.get("directory")
    except (OSError, InputError, KeyError, TypeError, AttributeError):
        return path.name, None
    if repository is not None:
        name, places_of_it = f"{repository}@{source.get('revision')}", snapshots(str(repository))
    else:
        name, places_of_it = Path(str(directory)).name, [Path(str(directory))]
    is_used = any(path.name.startswith(transformers.kept_name(each)) for each in places_of_it)
    return name, None if is_used else "its files changed or are gone"


def snapshots(repository: str) -> list[Path]:
    """The folders of the commits of a repository in HF's cache."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = repo_folder_name(repo_id=repository, repo_type="model")
    return list(Path(constants.HF_HUB_CACHE).glob(f"{folder}/snapshots/*"))


def leftovers(folder: Path) -> Iterator[Kept]:
    """What killed runs have left in a folder of the cache, and notes about files that are gone."""
    seen: list[Path] = []
    for path in sorted(folder.rglob(".*")):
        if is_left(path) and not any(each in path.parents for each in seen):
            seen.append(path)
            yield Kept(folder.name, path.name, path, size_of(path), "left by a killed run")
    for note in sorted(folder.glob("*.json")) if folder.name == "checked" else ():
        noted = None if is_partial(note) else noted_path(note)
        if noted is not None and not Path(noted).exists():
            yield Kept(folder.name, note.name, note, size_of(note), "about a file that is gone")


def noted_path(note: Path) -> str | None:
    """The path of the file that a note is about."""
    try:
        found = read_json(note)
    except (OSError, InputError):
        return None
    path = found.get("path") if isinstance(found, dict) else None
    return path if isinstance(path, str) else None


def hub_contents() -> Iterator[Kept]:
    """The commits in Hugging Face's cache with official checkpoints, our models or adapters."""
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        found = scan_cache_dir()
    except CacheNotFound:
        return
    for repository in sorted(found.repos, key=lambda each: str(each.repo_id)):
        if repository.repo_type != "model":
            continue
        for commit in sorted(repository.revisions, key=lambda each: str(each.commit_hash)):
            if is_ours(repository.repo_id, commit):
                refs = sorted(commit.refs)
                name = f"{repository.repo_id}@{refs[0] if refs else commit.commit_hash[:7]}"
                size, why = commit.size_on_disk, why_unneeded(repository.repo_id, commit)
                yield Kept(HUB, name, Path(commit.snapshot_path), size, why)


def is_ours(repository: str, commit: Any) -> bool:
    """Whether a commit in HF's cache holds an official checkpoint, or what this package wrote."""
    if official_name(repository, commit) is not None:
        return True
    files = {each.file_name: each.file_path for each in commit.files}
    try:
        if CONFIG_FILE in files:
            config = read_json(files[CONFIG_FILE])
            if isinstance(config, dict) and config.get("model_type") in transformers.MODEL_TYPES:
                return True
            return isinstance(config, dict) and config.get("model") in MODEL_CLASSES
        if ADAPTER_CONFIG_FILE in files:
            config = read_json(files[ADAPTER_CONFIG_FILE])
            return isinstance(config, dict) and {"towers", "base"} <= config.keys()
    except (OSError, InputError, TypeError):
        pass
    return False


def official_name(repository: str, commit: Any) -> str | None:
    """The released model whose checkpoint, and nothing else, a commit in HF's cache holds."""
    names = {each.file_name for each in commit.files}
    for name, release in RELEASES.items():
        if release.repository == repository and names == {release.filename}:
            return name
    return None


def why_unneeded(repository: str, commit: Any) -> str | None:
    """Why a commit in HF's cache is not needed any more; None if it may be."""
    name = official_name(repository, commit)
    if name is None:
        return None
    revisions = [*sorted(commit.refs), *([None] if "main" in commit.refs else [])]
    converted = (converted_directory(name, revision) / CONFIG_FILE for revision in revisions)
    return "converted already" if any(each.is_file() for each in converted) else None


def remove_commits(commits: Sequence[Kept]) -> None:
    """Removes commits from HF's cache, with the files that no other commit has."""
    from huggingface_hub import scan_cache_dir

    if commits:
        scan_cache_dir().delete_revisions(*(kept.path.name for kept in commits)).execute()
