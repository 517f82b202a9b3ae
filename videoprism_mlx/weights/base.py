"""The model that adapters belong to: its name, its weights, and errors about another one."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import CheckpointError, excerpt
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.files.places import user_path
from videoprism_mlx.models import canonical_name
from videoprism_mlx.weights import hub
from videoprism_mlx.weights.directory import CONFIG_FILE, WEIGHTS_FILE, read_config
from videoprism_mlx.weights.integrity import CHECKSUM_KEY, known_checksum

# What to do about adapters of another model.
ADVICE = "Leave out the model (--model) to use theirs"


def base_name(base: str | Path, revision: str | None = None) -> str:
    """The name of a model, with its revision, or the absolute path of its directory."""
    path, (name, revision) = user_path(base), hub.split_revision(base, revision)
    if canonical_name(str(base)) is None and path.exists():
        return os.path.abspath(path)
    return f"{name}@{revision}" if revision else name


def base_checksum(model: VideoPrismModel, base: str | Path | None = None) -> str | None:
    """The checksum of the file that a model's weights were read from. None if it is unknown."""
    directory = model.directory or base
    path = None if directory is None else Path(directory) / WEIGHTS_FILE
    return sha256(path) if path and path.is_file() else None


def weights_checksum(model: VideoPrismModel) -> str | None:
    """What config.json says of a model's weights, or the checksum of the file; None without."""
    directory = None if model.directory is None else Path(model.directory)
    if directory is None or not (directory / CONFIG_FILE).is_file():
        return None
    noted = read_config(directory).get(CHECKSUM_KEY)
    weights = directory / WEIGHTS_FILE
    if noted is None and weights.is_file():
        noted = known_checksum(weights)
    return None if noted is None else str(noted)


def require_name(model: VideoPrismModel, directory: Path, base: Mapping[str, Any]) -> None:
    """Raises CheckpointError if a model that is not here yet is known to be another than the base.

    The names of released models tell that, so that the weights need not be downloaded.
    """
    if model.directory is not None:
        return
    names = [hub.split_revision(str(name))[0] for name in (base["name"], model.given_name)]
    known = [canonical_name(name) for name in names]
    if None not in known and known[0] != known[1]:
        raise other_base(model, directory, base, "that is another model")


def other_base(
    model: VideoPrismModel, directory: Path, base: Mapping[str, Any], reason: str
) -> CheckpointError:
    """The error about adapters that belong to another model."""
    return CheckpointError(
        f"the adapters {directory} were trained on {excerpt(base['name'])}, and cannot be added to "
        f"{model.called}: {reason}. {ADVICE}"
    )


def other_weights(
    model: VideoPrismModel, directory: Path, base: Mapping[str, Any], checksum: str | None
) -> CheckpointError:
    """The error about adapters of a model of the same form, but with other weights."""
    return CheckpointError(
        f"the adapters {directory} were trained on {excerpt(base['name'])}, whose weights have "
        f"the SHA-256 {excerpt(base['weights'])}, and cannot be added to {model.called}, whose "
        f"have {checksum}. {ADVICE}"
    )
