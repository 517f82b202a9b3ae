"""Uploads to the Hugging Face Hub: a directory, with its card, in one commit."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from videoprism_mlx.errors import InputError, UploadError, excerpt, shown
from videoprism_mlx.files.download import answered, explained
from videoprism_mlx.files.record import own_version
from videoprism_mlx.hub.card import is_ours, model_card, official_licence, on_hub
from videoprism_mlx.hub.contents import (
    ADAPTERS,
    CARD_FILE,
    OWN_FILES,
    Contents,
    examine,
    require_uploadable,
    size_of,
)
from videoprism_mlx.hub.library import LIBRARY, is_library, library_files
from videoprism_mlx.progress import logged_from
from videoprism_mlx.weights.hub import is_offline, patient, reason_of, status_of

MAIN = "main"

HUB_ID = re.compile(r"[A-Za-z0-9]([\w.-]{0,94}[A-Za-z0-9_])?/\w([\w.-]{0,94}\w)?", re.ASCII)

# The kinds of repositories, in the Hub's words.
MODELS, DATASETS = "model", "dataset"

AGAIN = "nothing of it is visible on the Hub; run the same command again, and what has arrived is "
AGAIN += "not sent again"

LATER = "nothing was uploaded; run the same command again when there is a network"

TOKEN = (
    "log in with `hf auth login`, or set HF_TOKEN, with a token that may write "
    "(https://huggingface.co/settings/tokens)"
)


class Uploaded(NamedTuple):
    """What an upload has done.

    `kind` is "model", "classifier", "adapters" or "library". `commit` is the commit that has the
    files, and `is_new` says that this upload has made it. `pull_request` is the address of the pull
    request, if one was made, and `license` what the card's metadata say.
    """

    repository: str
    kind: str
    revision: str
    commit: str
    url: str
    files: tuple[str, ...]
    bytes: int
    is_new: bool = True
    pull_request: str | None = None
    license: str | None = None
    kept_card: bool = False


class Target(NamedTuple):
    """Where an upload goes. `kind` is MODELS or DATASETS; `revision` is a branch."""

    repository: str
    kind: str = MODELS
    private: bool = False
    create_pr: bool = False
    revision: str | None = None

    @property
    def branch(self) -> str:
        """The branch that is changed."""
        return self.revision or MAIN

    @property
    def options(self) -> dict[str, Any]:
        """What every call of huggingface_hub needs to find it."""
        return {"repo_id": self.repository, "repo_type": self.kind}


def upload(
    directory: str | Path,
    repository: str,
    *,
    private: bool = False,
    create_pr: bool = False,
    revision: str | None = None,
    message: str | None = None,
    license: str | None = None,
    base: str | None = None,
    embeddings: bool = False,
    checks: Sequence[str] = (),
) -> Uploaded:
    """Uploads a model, a classifier, adapters or a library's record to `repository`, you/name.

    The directory is first checked as loading does. All files arrive in one commit or none does:
    to main, to the branch `revision`, which is made if it has to be, or with `create_pr` in a pull
    request. A new repository is made, `private` or not. `message` is that of the commit.

    A card is written with it, unless the directory has a README.md, or somebody has changed the one
    on the Hub. `license` is an identifier of the Hub, such as "apache-2.0"; official weights that
    were only converted have theirs. `checks` are lines for the card about what was compared.

    `base` is the name or Hub id of the model of adapters, or of a library, if they name a
    directory. Of a library, the record is uploaded, to a repository of data; with `embeddings` also
    its moments, with the names of the videos, but not their paths.
    """
    target = Target(repository, MODELS, private, create_pr, revision)
    if is_library(directory):
        target = target._replace(kind=DATASETS)
        check_target(target)
        return upload_library(directory, target, message, license, base, embeddings)
    if embeddings:
        raise InputError(f"{directory} is no library; leave out --embeddings (embeddings=...)")
    check_target(target)
    require_uploadable(directory)
    require_account(target)  # Before all weights are read.
    contents = with_known_base(examine(directory, base), target)
    card = model_card(contents, repository, revision, license, checks)
    return commit(target, contents.files, card, contents.kind, message)


def with_known_base(contents: Contents, target: Target) -> Contents:
    """The contents without a base that the Hub does not have: a path may look like an id."""
    from huggingface_hub import HfApi

    base = on_hub(contents.base)
    if base is None or contents.kind == ADAPTERS or official_licence(contents) is not None:
        return contents
    with explained_upload(target, LATER):
        return contents if HfApi().repo_exists(base) else contents._replace(base=None)


def upload_library(
    directory: str | Path,
    target: Target,
    message: str | None,
    license: str | None,
    base: str | None,
    embeddings: bool,
) -> Uploaded:
    """As `upload`, of a library's record and, with `embeddings`, of its moments."""
    require_account(target)
    with library_files(directory, target.repository, base, embeddings, license) as (files, card):
        return commit(target, files, card, LIBRARY, message)


def check_upload(repository: str) -> None:
    """Raises an error unless the user can upload to a repository. It asks the Hub, for seconds."""
    check_target(Target(repository))
    require_account(Target(repository))


def check_target(target: Target) -> None:
    """Raises InputError unless this can be a repository. It asks nobody."""
    if not HUB_ID.fullmatch(target.repository) or re.search(r"--|\.\.", target.repository):
        raise InputError(
            f"the repository is {shown(target.repository)}; expected you/name, of letters, digits, "
            "-, _ and . only"
        )
    if target.create_pr and target.revision is not None:
        raise InputError(
            f"a pull request proposes a change of {MAIN}; leave out --revision, or --create-pr"
        )


def require_account(target: Target) -> str:
    """The user's name on the Hub. Raises an error unless the user may write to the repository."""
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise InputError(f"there is no token for the Hub: {TOKEN}")
    with explained_upload(target, LATER):
        account = answered(lambda: HfApi().whoami())
    role = account.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise InputError(f"your token for the Hub may only read: {TOKEN}")
    owner, names = target.repository.split("/")[0], own_names(account)
    is_own = owner.casefold() in (name.casefold() for name in names)
    if not is_own and not target.create_pr:
        raise InputError(
            f"{target.repository} is not yours: you write as {' or '.join(names)}. Name a "
            f"repository as {names[0]}/NAME, or propose the change with --create-pr"
        )
    return names[0]


def own_names(account: Mapping[str, Any]) -> list[str]:
    """The names of a user and of the user's organizations."""
    return [str(account["name"]), *(str(each["name"]) for each in account.get("orgs", []))]


def prepare(target: Target) -> dict[str, Any]:
    """Makes the repository and the branch if they are missing.

    Returns the `files` that are there, and the `commit` that has them.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = HfApi()
    with explained_upload(target), patient(target.repository):
        try:
            info = api.repo_info(**target.options)
        except RepositoryNotFoundError:
            if target.create_pr and target.repository.split("/")[0] not in own_names(api.whoami()):
                raise
            api.create_repo(**target.options, private=target.private or None)
            info = api.repo_info(**target.options)
    if target.private and not info.private:
        raise InputError(
            f"{target.repository} is there already, and everybody can read it; leave out "
            "--private, change that on its page, or name another repository"
        )
    if target.branch != MAIN and not target.branch.startswith("refs/"):
        with explained_upload(target):
            api.create_branch(**target.options, branch=target.branch, exist_ok=True)
    with explained_upload(target):
        info = api.repo_info(**target.options, revision=target.branch)
    return {
        "commit": info.sha,
        "files": [each.rfilename for each in getattr(info, "siblings", None) or []],
    }


def with_card(
    files: Mapping[str, Path | bytes], card: str, target: Target, found: Mapping[str, Any]
) -> tuple[dict[str, Path | bytes], bool]:
    """The files with the card, unless there is one that must be kept; and whether there is."""
    from huggingface_hub import hf_hub_download

    if CARD_FILE in files and not is_ours(text_of(files[CARD_FILE])):
        return dict(files), True
    if CARD_FILE in found["files"]:
        with explained_upload(target):
            path = hf_hub_download(**target.options, filename=CARD_FILE, revision=found["commit"])
        if not is_ours(text_of(Path(path))):
            return {name: each for name, each in files.items() if name != CARD_FILE}, True
    return {**files, CARD_FILE: card.encode()}, False


def text_of(content: Path | bytes) -> str:
    """The text of a file."""
    content = content if isinstance(content, bytes) else content.read_bytes()
    return content.decode(errors="replace")


def license_in(files: Mapping[str, Path | bytes]) -> str | None:
    """The licence that a card names."""
    card = text_of(files.get(CARD_FILE, b""))
    found = re.match(r"---\n(?:.*\n)*?license: *(.+)\n(?:.*\n)*?---\n", card)
    return None if found is None else found[1].strip("\"' ")


def commit(
    target: Target, files: Mapping[str, Path | bytes], card: str, kind: str, message: str | None
) -> Uploaded:
    """Uploads files and card in one commit, and removes those that an earlier upload has left."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    found = prepare(target)
    files, kept_card = with_card(files, card, target, found)
    gone = [name for name in found["files"] if name in OWN_FILES and name not in files]
    additions = [CommitOperationAdd(name, each) for name, each in files.items()]
    api = HfApi()
    with explained_upload(target), patient(target.repository), quietly():
        made = api.create_commit(
            **target.options,
            operations=[*additions, *map(CommitOperationDelete, gone)],
            commit_message=message or f"Upload {kind} with videoprism_mlx {own_version()}",
            revision=None if target.create_pr else target.branch,
            create_pr=target.create_pr,
            parent_commit=None if target.create_pr else found["commit"],
        )
    folder = "datasets/" if target.kind == DATASETS else ""
    return Uploaded(
        target.repository,
        kind,
        target.branch,
        made.oid,
        f"{api.endpoint}/{folder}{target.repository}",
        tuple(sorted(files)),
        sum(size_of(each) for each in files.values()),
        made.oid != found["commit"],
        made.pr_url,
        license_in(files),
        kept_card,
    )


def quietly() -> AbstractContextManager[None]:
    """Hides what huggingface_hub says about commits, such as that nothing has changed."""
    return logged_from(logging.ERROR, "huggingface_hub.hf_api")


@contextmanager
def explained_upload(target: Target, advice: str = AGAIN) -> Iterator[None]:
    """Turns every error of the Hub into an UploadError that says what to do.

    `advice` is for a Hub that does not answer.
    """

    def hint(error: BaseException) -> str:
        status = status_of(error)
        if status in (401, 403):
            return TOKEN
        return "nothing was uploaded" if status or is_offline(error) else advice

    def reason(error: BaseException) -> str | None:
        if status_of(error) == 403:
            return f"your token may not write to it ({excerpt(message_of(error))})"
        return reason_of(error)

    with explained(target.repository, hint, reason, UploadError):
        yield


def message_of(error: BaseException) -> str:
    """What the Hub says about a refusal."""
    return str(getattr(error, "server_message", None) or error).strip()
