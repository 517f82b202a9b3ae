"""What a directory holds that is to be uploaded: checked as loading does, and made fit for others.

Paths of this machine, which a record of how something was made may name, are not uploaded.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from videoprism_mlx.convert.transformers import is_transformers
from videoprism_mlx.encoders import FactorizedVideoClassifier, VideoPrismModel
from videoprism_mlx.errors import CheckpointError, InputError, excerpt
from videoprism_mlx.features.processor import Processor, processor_for, with_settings_of
from videoprism_mlx.files.checksum import CHECKSUM, with_checksum
from videoprism_mlx.files.places import user_path
from videoprism_mlx.files.reading import read_json_object
from videoprism_mlx.files.record import RECORD_FILE, as_json
from videoprism_mlx.models import canonical_name
from videoprism_mlx.weights.adapters import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_FILES,
    ADAPTERS_FILE,
    AdapterSettings,
    check_adapters,
    is_adapters,
    read_adapter_config,
)
from videoprism_mlx.weights.base import weights_checksum
from videoprism_mlx.weights.directory import (
    CONFIG_FILE,
    MODEL_FILES,
    RESULT_FILE,
    WEIGHTS_FILE,
    read_config,
)
from videoprism_mlx.weights.hub import looks_like_repository, split_revision
from videoprism_mlx.weights.integrity import require_intact
from videoprism_mlx.weights.labels import Labels, load_labels
from videoprism_mlx.weights.loading import model_directory, model_outline, read_model

CARD_FILE = "README.md"

# What else a user may have put beside a model.
BESIDE = (CARD_FILE, "LICENSE", "NOTICE")

# The moments of a library.
MOMENTS_FILE = "moments.parquet"

# All that an upload may consist of. What an earlier one left and a new one lacks is removed.
OWN_FILES = tuple(dict.fromkeys((*MODEL_FILES, *ADAPTER_FILES, RECORD_FILE, MOMENTS_FILE)))

MODEL, CLASSIFIER, ADAPTERS = "model", "classifier", "adapters"


class Contents(NamedTuple):
    """What is uploaded: `files` are paths or bytes, by their names in the repository.

    `described` is the config.json or adapter_config.json as it is uploaded. `model` is without its
    weights if they are not part of it, and None if the base of adapters is not known here.
    """

    kind: str
    directory: Path
    files: dict[str, Path | bytes]
    described: dict[str, Any]
    base: str | None = None
    model: VideoPrismModel | None = None
    processor: Processor | None = None
    labels: Labels | None = None
    adapters: AdapterSettings | None = None
    metrics: Mapping[str, Any] = {}


def examine(directory: str | Path, base: str | None = None) -> Contents:
    """What is in a model directory or one of adapters. Raises an error unless it is whole.

    `base` is the name or Hub id of the model that adapters belong to, if they name a directory.
    """
    path = user_path(directory)
    if is_adapters(path):
        return examine_adapters(path, base)
    if base is not None:
        raise InputError("a base is for adapters, whose base is a directory here; leave it out")
    require_uploadable(path)
    model = read_model(path)
    model.directory = path
    described = public(read_config(path))
    labels = None
    if isinstance(model, FactorizedVideoClassifier):
        labels = load_labels(path, model.num_classes or 0)
    return Contents(
        MODEL if labels is None else CLASSIFIER,
        path,
        found(path, MODEL_FILES) | changed(path, CONFIG_FILE, described),
        described,
        base_of(described),
        model,
        None if not has_video(model) else processor_for(model, path),
        labels,
        metrics=metrics(path),
    )


def require_uploadable(directory: str | Path) -> None:
    """Raises an error unless this is a directory of a model or of adapters, by the files it has."""
    path = user_path(directory)
    if not path.is_dir():
        raise InputError(f"there is no directory {path}; expected a model, adapters or a library")
    if is_transformers(path):
        raise InputError(
            f"{path} is a model of Transformers, whose own tools upload it; to upload a model "
            f"directory, run `videoprism-mlx convert {path} -o DIRECTORY` first"
        )
    if not is_adapters(path):
        read_config(path)


def examine_adapters(path: Path, base: str | None) -> Contents:
    """The adapters in a directory, and the model that they name."""
    settings, noted = read_adapter_config(path)
    require_intact(path / ADAPTERS_FILE, noted)
    name = str(noted["name"]) if base is None else base
    if is_local(name):
        raise InputError(
            f"{path} was trained on {excerpt(name, 250)}, a directory that others do not have: "
            "upload that model as well, and name it with --base you/model (base=...)"
        )
    model, directory = model_outline(name)
    check_adapters(model, path)  # It compares the weights as well, by their checksum.
    if directory is not None and weights_checksum(model) is None:
        model.directory = model_directory(name)  # Of Transformers' weights, only now.
        check_adapters(model, path)
    described = read_json_object(path / ADAPTER_CONFIG_FILE, CheckpointError)
    described = with_public_checksum({**described, "base": {**described["base"], "name": name}})
    return Contents(
        ADAPTERS,
        path,
        found(path, ADAPTER_FILES) | changed(path, ADAPTER_CONFIG_FILE, described),
        described,
        name,
        model,
        with_settings_of(path, processor_for(model, directory)),
        adapters=settings,
        metrics=metrics(path),
    )


def has_video(model: VideoPrismModel) -> bool:
    """Whether a model takes videos."""
    return "video" in model.towers


def found(path: Path, names: tuple[str, ...]) -> dict[str, Path | bytes]:
    """Those of the named files, and of those beside them, that a directory has."""
    return {name: path / name for name in (*names, *BESIDE) if (path / name).is_file()}


def changed(path: Path, name: str, described: Mapping[str, Any]) -> dict[str, Path | bytes]:
    """A JSON file as bytes, if it is uploaded with other content than it has here."""
    if read_json_object(path / name, CheckpointError) == described:
        return {}
    return {name: (as_json(described) + "\n").encode()}


def public(described: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json without the paths of this machine that its "source" may name."""
    source = without_paths(described.get("source"))
    if source == described.get("source"):
        return dict(described)
    return with_public_checksum({**described, "source": source})


def with_public_checksum(described: Mapping[str, Any]) -> dict[str, Any]:
    """The values with their checksum in the place of an earlier one, if they had one."""
    values = {name: value for name, value in described.items() if name != CHECKSUM}
    return with_checksum(values) if CHECKSUM in described else values


def without_paths(value: Any) -> Any:
    """A value of a record in which each absolute path is only its last name."""
    if isinstance(value, Mapping):
        return {name: without_paths(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(one) for one in value]
    return Path(value).name if isinstance(value, str) and is_local(value) else value


def is_local(name: str) -> bool:
    """Whether a name is that of a directory on this machine, which others do not have."""
    is_path = os.path.isabs(name) or name.startswith((".", "~"))
    return is_path or (canonical_name(name) is None and user_path(name).exists())


def base_of(described: Mapping[str, Any]) -> str | None:
    """The name or Hub id of the model that a model was made from; None if it is not known."""
    source = described.get("source")
    if not isinstance(source, Mapping):
        return None
    keys = ("repository", "base", "trained_from", "quantized_from", "dequantized_from")
    name = next((source[key] for key in keys if source.get(key)), "")
    named, _ = split_revision(str(name))
    is_name = canonical_name(named) is not None or looks_like_repository(named)
    return str(name) if is_name else None


def metrics(path: Path) -> dict[str, float]:
    """What training has measured, if the directory says so."""
    if not (path / RESULT_FILE).is_file():
        return {}
    noted = read_json_object(path / RESULT_FILE, CheckpointError)
    return {name: value for name, value in noted.items() if isinstance(value, float)}


def size_of(content: Path | bytes) -> int:
    """The number of bytes of a file."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def checksum_of(contents: Contents) -> str | None:
    """The SHA-256 of the weights or adapters, as the uploaded config says."""
    checksum = contents.described.get("weights_sha256")
    return str(checksum) if checksum else None


def weights_file(contents: Contents) -> str:
    """The name of the file with the weights or adapters."""
    return ADAPTERS_FILE if contents.kind == ADAPTERS else WEIGHTS_FILE
