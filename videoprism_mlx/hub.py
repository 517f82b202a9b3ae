"""What is fetched, and where it is kept."""

import errno
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from videoprism_mlx.checkpoint import (
    CONFIG_FILE,
    LABELS_FILE,
    PROCESSOR_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
)
from videoprism_mlx.models import RELEASES, unpublished

TIMEOUT_SECONDS = 30


def cache_directory() -> Path:
    """Where converted models and tokenizers are kept: VIDEOPRISM_MLX_CACHE moves it."""
    if moved := os.environ.get("VIDEOPRISM_MLX_CACHE"):
        return Path(moved).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "videoprism_mlx"


def converted_directory(name: str, revision: str | None = None) -> Path:
    """Where the converted model of a released checkpoint is kept."""
    suffix = "@" + revision.replace("/", "_") if revision else ""
    return cache_directory() / "models" / f"{name}{suffix}"


def download_checkpoint(name: str, revision: str | None = None) -> Path:
    """The official `.npz` of a released checkpoint: from Hugging Face's cache, or the Hub."""
    import huggingface_hub

    if name not in RELEASES:
        raise ValueError(unpublished(name))
    repository, filename = RELEASES[name]
    hint = (
        f"without a network, bring {filename} from https://huggingface.co/{repository} "
        f"and run: videoprism-mlx convert {filename} -o DIRECTORY"
    )
    with _explained(f"{filename} of {repository}", hint):
        return Path(
            huggingface_hub.hf_hub_download(
                repo_id=repository, filename=filename, revision=revision
            )
        )


def origin(name: str, revision: str | None = None) -> dict[str, str]:
    """Where a released checkpoint comes from, for a config.json."""
    return {"repository": RELEASES[name].repository, "revision": revision or "main"}


def download_model(repository: str, revision: str | None = None) -> Path:
    """A model directory that someone put on the Hub."""
    import huggingface_hub

    with _explained(repository, "is it the name of a public repository, or of a directory here?"):
        return Path(
            huggingface_hub.snapshot_download(
                repo_id=repository,
                revision=revision,
                allow_patterns=[
                    CONFIG_FILE,
                    WEIGHTS_FILE,
                    TOKENIZER_FILE,
                    PROCESSOR_FILE,
                    LABELS_FILE,
                ],
            )
        )


def download_bytes(url: str) -> bytes:
    """What a public address serves; HF_HUB_OFFLINE, Hugging Face's switch, counts here too."""
    with _explained(url, f"without a network, bring {url} and pass its path"):
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            raise ConnectionError("HF_HUB_OFFLINE is set")
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            return response.read()


@contextmanager
def _explained(what: str, hint: str) -> Iterator[None]:
    """Turns whatever a download raises into one line that says what to do."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        reason = error.__cause__ or error
        first_line = (str(reason).strip() or type(reason).__name__).splitlines()[0]
        raise ConnectionError(f"could not fetch {what}: {first_line}; {hint}") from error
