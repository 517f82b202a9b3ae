"""Downloads of checkpoints and models, and where converted models are kept."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from videoprism_mlx.errors import InputError
from videoprism_mlx.files.download import answer_seconds, answered, explained
from videoprism_mlx.files.places import cache_directory
from videoprism_mlx.models import RELEASES, SHIPPED, unpublished
from videoprism_mlx.weights.directory import CONFIG_FILE, MODEL_FILES


def converted_directory(name: str, revision: str | None = None) -> Path:
    """Where the converted model of a released checkpoint is kept."""
    suffix = "@" + revision.replace("/", "_") if revision else ""
    return cache_directory() / "models" / f"{name}{suffix}"


def download_checkpoint(name: str, revision: str | None = None) -> Path:
    """The official `.npz` of a released checkpoint, from Hugging Face's cache or from the Hub."""
    import huggingface_hub

    if name in SHIPPED:
        raise InputError(f"{name} comes with the package, as the model directory {SHIPPED[name]}")
    if name not in RELEASES:
        raise InputError(unpublished(name))
    repository, filename = RELEASES[name]
    hint = (
        f"without a network, bring {filename} from https://huggingface.co/{repository}, "
        f"run `videoprism-mlx convert {filename} -o DIRECTORY` and use DIRECTORY as the model"
    )

    def download(**options: Any) -> Path:
        return Path(
            huggingface_hub.hf_hub_download(
                repo_id=repository, filename=filename, revision=revision, **options
            )
        )

    with explained(f"{filename} of {repository}", hint):
        return downloaded(download, repository, filename, revision)


def downloaded(
    download: Callable[..., Path], repository: str, filename: str, revision: str | None
) -> Path:
    """The path that `download` returns. If the Hub does not answer, it looks in the cache only.

    The Hub is first asked about one file, `filename`. Without a network, that fails at once, while
    a download would be tried again for minutes.
    """
    import huggingface_hub

    url = huggingface_hub.hf_hub_url(repository, filename, revision=revision)
    try:
        answered(lambda: huggingface_hub.get_hf_file_metadata(url, timeout=answer_seconds()))
    except Exception as error:
        try:
            return download(local_files_only=True)
        except Exception:
            raise error from error.__cause__
    return download()


def origin(name: str, revision: str | None = None) -> dict[str, str]:
    """Where a released checkpoint comes from, for a config.json."""
    return {"repository": RELEASES[name].repository, "revision": revision or "main"}


def download_model(
    repository: str, revision: str | None = None, files: Collection[str] = MODEL_FILES
) -> Path:
    """A model directory from a repository on the Hub, with some of its files."""
    import huggingface_hub

    def download(**options: Any) -> Path:
        return Path(
            huggingface_hub.snapshot_download(
                repo_id=repository, revision=revision, allow_patterns=list(files), **options
            )
        )

    with explained(repository, "is it the name of a public repository, or of a directory here?"):
        return downloaded(download, repository, CONFIG_FILE, revision)
