"""Downloads of checkpoints and models, and where converted models are kept."""

import logging
import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from videoprism_mlx.errors import DownloadError, InputError, excerpt
from videoprism_mlx.files.download import (
    NO_NETWORK_NEEDED,
    answer_seconds,
    answered,
    causes,
    explained,
    usual_reason,
)
from videoprism_mlx.files.places import cache_directory, user_path
from videoprism_mlx.models import DEMO_MODEL, RELEASES, SHIPPED, canonical_name, unpublished
from videoprism_mlx.tokenizers import TOKENIZER_FILE
from videoprism_mlx.weights.directory import CONFIG_FILE, MODEL_FILES

# For how long the copy in the cache is used without asking, if the Hub did not answer.
SILENT_SECONDS = 30.0

# What to do without a network.
WITHOUT_NETWORK = f"Without a network, {NO_NETWORK_NEEDED}"

# What the Hub and its library say about a wrong token.
INVALID = ("Invalid user token", "Invalid credentials", "Invalid username or password")

# The modules of huggingface_hub that warn of each attempt that fails, and what they say.
TALKING = ("utils._http", "file_download")
ATTEMPT = re.compile("thrown while requesting|Retrying in|Rate limited|Error while downloading")

logger = logging.getLogger(__name__)

# When the Hub did not answer about a repository that has a copy in the cache.
_silent: dict[str, float] = {}

# Those of which it was said that the copy in the cache is used.
_said: set[str] = set()


def split_revision(name_or_dir: str | Path, revision: str | None = None) -> tuple[str, str | None]:
    """A name or Hub id, and its revision, which may follow after an @ as in "you/model@v1"."""
    text = str(name_or_dir)
    name, at, named = text.partition("@")
    is_name = canonical_name(name) is not None or looks_like_repository(name)
    if not (at and named and is_name) or user_path(text).exists():
        return text, revision
    if revision not in (None, named):
        raise InputError(f"{text} names one revision, and {revision!r} is another; name one")
    return name, named


def looks_like_repository(text: str) -> bool:
    """Whether a text has the form of a Hub id, you/name."""
    is_path = text.startswith(("/", ".", "~"))
    # Of Google's, those that are not known are mistyped, but for models of Transformers.
    is_mistyped = text.startswith("google/videoprism") and not text.endswith("-hf")
    return text.count("/") == 1 and not is_path and not is_mistyped


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
        f"run `videoprism-mlx convert {filename} -o DIRECTORY` and use DIRECTORY as the model "
        f"(--model DIRECTORY), or use {DEMO_MODEL}, a tiny model that comes with the package"
    )

    def download(**options: Any) -> Path:
        return Path(
            huggingface_hub.hf_hub_download(
                repo_id=repository, filename=filename, revision=revision, **options
            )
        )

    with explained(f"{filename} of {repository}", hint, reason_of):
        return downloaded(download, repository, filename, revision)


def downloaded(
    download: Callable[..., Path], repository: str, filename: str, revision: str | None
) -> Path:
    """The path that `download` returns. If the Hub does not answer, it looks in the cache only.

    The Hub is first asked about one file, `filename`. Without a network, that fails at once, while
    a download would be tried again for minutes.
    """
    import huggingface_hub

    if time.monotonic() - _silent.get(repository, -SILENT_SECONDS) < SILENT_SECONDS:
        with suppress(Exception):
            return download(local_files_only=True)
    url = huggingface_hub.hf_hub_url(repository, filename, revision=revision)
    # A second more, so that it is `answered` that says how to wait longer.
    seconds = answer_seconds() + 1
    try:
        answered(lambda: huggingface_hub.get_hf_file_metadata(url, timeout=seconds))
    except Exception as error:
        if isinstance(error, definite()):
            raise
        try:
            path = download(local_files_only=True)
        except Exception:
            raise error from error.__cause__
        if status_of(error) is None:
            _silent[repository] = time.monotonic()
        if repository not in _said and not is_offline(error):
            _said.add(repository)
            reason = reason_of(error) or usual_reason(error)
            logger.info("%s is the copy in the cache: %s", repository, reason)
        return path
    with patient(repository):
        return download()


def definite() -> tuple[type[Exception], ...]:
    """The errors by which the Hub says that there is no such revision or file."""
    from huggingface_hub import errors

    return errors.RevisionNotFoundError, errors.EntryNotFoundError


@contextmanager
def patient(repository: str) -> Iterator[None]:
    """Says once that the Hub does not answer any more, and not for each file and attempt."""
    talking = [logging.getLogger(f"huggingface_hub.{name}") for name in TALKING]
    said: list[logging.LogRecord] = []

    def is_news(record: logging.LogRecord) -> bool:
        if not ATTEMPT.search(record.getMessage()):
            return True
        if not said:
            said.append(record)
            logger.warning("the Hub does not answer about %s; trying again", repository)
        return False

    for one in talking:
        one.addFilter(is_news)
    try:
        yield
    finally:
        for one in talking:
            one.removeFilter(is_news)


def reason_of(error: BaseException) -> str | None:
    """Why the Hub has refused something, in our words; None if its own are to be used."""
    from huggingface_hub import errors

    known = {
        errors.GatedRepoError: "its owner has to grant you access first, on its page",
        errors.RevisionNotFoundError: "it has no such revision",
        errors.RepositoryNotFoundError: "there is no such repository, or it is private and your "
        "token (HF_TOKEN, or `hf auth login`) may not read it",
    }
    for one in causes(error):
        if is_offline(one):
            return "HF_HUB_OFFLINE is set"
        if any(each in str(one) for each in INVALID):
            return "your token (HF_TOKEN, or that of `hf auth login`) is not valid"
        for kind, reason in known.items():
            if isinstance(one, kind):
                return reason
        url = getattr(getattr(one, "response", None), "url", None)
        if isinstance(one, errors.EntryNotFoundError) and url is not None:
            return without(PurePosixPath(urlsplit(str(url)).path).name)
        if (status := status_of(one)) is not None:
            said = getattr(one, "server_message", None)
            return f"the Hub answers {status}" + (f" ({excerpt(said)})" if said else "")
    return None


def without(file: str) -> str:
    """That a repository lacks a file."""
    return f"it has no {file}"


def status_of(error: BaseException) -> int | None:
    """The status code of an answer that is an error; None if there was no answer."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def is_offline(error: BaseException) -> bool:
    """Whether the user has turned the network off, with HF_HUB_OFFLINE."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    return isinstance(error, OfflineModeIsEnabled)


def origin(name: str, revision: str | None = None) -> dict[str, str]:
    """Where a released checkpoint comes from, for a config.json."""
    return {"repository": RELEASES[name].repository, "revision": revision or "main"}


def cached_model(repository: str, revision: str | None = None) -> Path | None:
    """The directory of a model that was downloaded earlier, without asking the Hub."""
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(repository, CONFIG_FILE, revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def tokenizer_file(tokenizer: str | Path) -> Path:
    """The local file of a tokenizer: a .model file, or a Hub id of a repository that has one."""
    path = user_path(tokenizer)
    repository, revision = split_revision(tokenizer)
    if path.exists() or not looks_like_repository(repository):
        return path
    return download_model(repository, revision, [TOKENIZER_FILE], TOKENIZER_FILE) / TOKENIZER_FILE


def download_model(
    repository: str,
    revision: str | None = None,
    files: Collection[str] = MODEL_FILES,
    needed: str = CONFIG_FILE,
) -> Path:
    """A directory with some of the files of a repository on the Hub. `needed` must be there."""
    import huggingface_hub

    def download(**options: Any) -> Path:
        return Path(
            huggingface_hub.snapshot_download(
                repo_id=repository, revision=revision, allow_patterns=list(files), **options
            )
        )

    def hint(error: BaseException) -> str:
        question = "is it the name of a public repository, or of a directory here?"
        return question if status_of(error) else f"{question} {WITHOUT_NETWORK}"

    named = f"{repository}@{revision}" if revision else repository
    try:
        with explained(named, hint, reason_of):
            return downloaded(download, repository, needed, revision)
    except DownloadError as error:
        error.is_missing_file = error.reason == without(needed)
        raise
