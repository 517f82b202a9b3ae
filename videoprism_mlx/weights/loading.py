"""Models with their weights: from a directory, from the Hub, or converted on first use."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import mlx.core as mx

from videoprism_mlx import convert
from videoprism_mlx.convert import transformers
from videoprism_mlx.encoders import FactorizedEncoder, FactorizedVideoClassifier, VideoPrismModel
from videoprism_mlx.errors import CheckpointError, InputError, counted, whole_number
from videoprism_mlx.files import places
from videoprism_mlx.models import (
    RELEASES,
    SHIPPED,
    build,
    canonical_name,
    checked_config,
    get_config,
    known_models,
    parse_dtype,
    unpublished,
)
from videoprism_mlx.weights import hub
from videoprism_mlx.weights.directory import (
    CONFIG_FILE,
    MODEL_FILES,
    WEIGHTS_FILE,
    check_shapes,
    described_shapes,
    load_weights,
    read_checked_config,
)
from videoprism_mlx.weights.quantize.layers import quantize_layers
from videoprism_mlx.weights.quantize.settings import Packings, parse_spent

logger = logging.getLogger(__name__)

# What is downloaded of a model on the Hub: a model directory, or one that Transformers has written.
HUB_FILES = tuple(dict.fromkeys((*MODEL_FILES, *transformers.FILES, transformers.SHARDS)))

# Those of them that are small, and tell what the model is.
SMALL_FILES = tuple(name for name in HUB_FILES if not name.endswith(".safetensors"))

Model = TypeVar("Model", bound=VideoPrismModel)


def load_model(
    name_or_dir: str | Path, dtype: str | mx.Dtype | None = None, revision: str | None = None
) -> VideoPrismModel:
    """A model of any kind: by name, from a model directory, or from the Hub.

    `dtype` is the type of parameters and activations, by default the stored one. `revision` is a
    branch, tag or commit on the Hub. It may also follow the name: "you/model@v1".
    """
    return load_with_directory(name_or_dir, dtype, revision)[0]


def load_with_directory(
    name_or_dir: str | Path, dtype: str | mx.Dtype | None = None, revision: str | None = None
) -> tuple[VideoPrismModel, Path]:
    """As `load_model`, and the directory that the model was read from."""
    if dtype is not None:
        parse_dtype(dtype)  # Before anything is downloaded.
    directory = model_directory(name_or_dir, revision)
    try:
        model = read_model(directory)
    except CheckpointError as error:
        if directory.is_relative_to(places.cache_directory()):
            raise CheckpointError(
                f"{error}. This is the cached copy of {name_or_dir}: remove {directory}, "
                "and it will be converted again"
            ) from None
        raise
    model.directory, model.given_name = directory, str(name_or_dir)
    model = finished(model, dtype)
    logger.debug(
        "%s: a %s from %s, in %s on the %s",
        name_or_dir,
        type(model).__name__,
        directory,
        str(model.dtype).removeprefix("mlx.core."),
        mx.default_device().type.name.upper(),
    )
    return model, directory


def load_video_encoder(
    name_or_dir: str | Path, dtype: str | mx.Dtype | None = None, revision: str | None = None
) -> FactorizedEncoder:
    """The video encoder of any model: a backbone, or the vision tower of a larger one."""
    return load_model(name_or_dir, dtype, revision).video_encoder


def load_classifier(
    name_or_dir: str | Path,
    num_classes: int | None = None,
    dtype: str | mx.Dtype | None = None,
    revision: str | None = None,
) -> FactorizedVideoClassifier:
    """A saved classifier, or another model's video encoder with a new head for `num_classes`.

    The parameters of a new head are random. A warning names them.
    """
    model = load_model(name_or_dir, dtype, revision)
    if isinstance(model, FactorizedVideoClassifier):
        if num_classes not in (None, model.num_classes):
            raise InputError(
                f"{name_or_dir} is a classifier of "
                f"{counted(model.num_classes or 0, 'class', 'classes')}, not of {num_classes}; "
                "leave num_classes out to load it as it is"
            )
        return model

    encoder = model.video_encoder
    if num_classes is None:
        raise InputError(
            f"{name_or_dir} is not a classifier; give num_classes to add a new head to its encoder"
        )
    classifier = with_new_head(encoder, whole_number(num_classes, "num_classes"))
    logger.warning(
        "%s has a new head: atten_pooler and projection (%s) are random; train them",
        name_or_dir,
        counted(num_classes, "class", "classes"),
    )
    return classifier


def with_new_head(encoder: FactorizedEncoder, num_classes: int) -> FactorizedVideoClassifier:
    """A classifier of a trained encoder and a head with random parameters, of the same type."""
    encoder_params = {key: value for key, value in encoder.config.items() if key != "model"}
    config = dict(
        model="FactorizedVideoClassifier", encoder_params=encoder_params, num_classes=num_classes
    )
    classifier = cast(FactorizedVideoClassifier, build(checked_config(config)))
    classifier.encoder = encoder
    return finished(classifier, encoder.dtype)


def read_model(directory: Path) -> VideoPrismModel:
    """The model in a directory. Raises CheckpointError unless all of its weights are there."""
    config, described = read_checked_config(directory)
    packings = check_shapes(directory, config, described)
    model = built(config, packings, described)
    load_weights(model, directory, described)
    return model


def built(
    config: Mapping[str, Any], packings: Packings | None, described: Mapping[str, Any]
) -> VideoPrismModel:
    """The model of a checked configuration, with its quantized layers, and random weights."""
    model = build(config)
    if packings is not None:
        quantize_layers(model, packings)
        model.spent = parse_spent(described)
    return model


def described_model(directory: Path) -> VideoPrismModel:
    """The model that a directory's config.json describes. Its weights, if there, must fit."""
    config, described = read_checked_config(directory)
    if (directory / WEIGHTS_FILE).is_file():
        packings = check_shapes(directory, config, described)
    else:
        packings = described_shapes(directory, config, described)[1]
    try:
        return built(config, packings, described)
    except InputError as error:
        raise CheckpointError(f"{directory / CONFIG_FILE}: {error}") from None


def model_outline(
    name_or_dir: str | Path, revision: str | None = None
) -> tuple[VideoPrismModel, Path | None]:
    """A model without its weights, and its directory if that is on this machine.

    It tells what the model can do before the weights are downloaded or read. Of a model on the Hub,
    only the other files, which are small, are downloaded.
    """
    given_name = str(name_or_dir)
    name_or_dir, revision = hub.split_revision(name_or_dir, revision)
    name, repository = canonical_name(name_or_dir), repository_of(name_or_dir)
    directory: Path | None
    if name in RELEASES:
        directory = hub.converted_directory(name, revision)
        if not (directory / CONFIG_FILE).is_file():
            model = build(get_config(name))
            model.given_name = given_name
            return model, None
    elif repository is not None:
        directory = hub.download_model(repository, revision, SMALL_FILES)
        if transformers.is_transformers(directory):
            directory = transformers.outlined(directory, has_weights=False)
    else:
        directory = model_directory(name_or_dir, revision)
    model = described_model(directory)
    model.directory, model.given_name = directory, given_name
    return model, directory


def repository_of(name_or_dir: str | Path) -> str | None:
    """The repository on the Hub that a name stands for; None if it stands for something else."""
    text, _ = hub.split_revision(name_or_dir)
    if canonical_name(text) is not None or places.user_path(text).exists():
        return None
    return text if hub.looks_like_repository(text) else None


def finished(model: Model, dtype: str | mx.Dtype | None) -> Model:
    """`model` in evaluation mode and, if `dtype` is given, in that type."""
    if dtype is not None:
        model.set_dtype(parse_dtype(dtype))
    model.eval()
    return model


def model_directory(name_or_dir: str | Path, revision: str | None = None) -> Path:
    """The local directory of a model, which is downloaded and converted if it has to be.

    A model that Transformers has written is converted as a released checkpoint is: once, to the
    cache.
    """
    text, revision = hub.split_revision(name_or_dir, revision)
    name = canonical_name(text)
    if name in RELEASES:
        return converted(name, revision)
    if name in SHIPPED:
        if revision is not None:
            raise InputError(f"{name} comes with the package and has no revision {revision!r}")
        return SHIPPED[name]
    path = places.user_path(text)
    if text and path.is_dir():
        if revision is not None:
            raise InputError(f"{path} is a local directory, which has no revision {revision!r}")
        return transformers.kept(path) if transformers.is_transformers(path) else path
    if name is not None:
        raise InputError(unpublished(name))
    if path.is_file():
        is_checkpoint = path.suffix == ".npz"
        hint = f": convert it with `videoprism-mlx convert {path} -o DIRECTORY`"
        raise InputError(f"{path} is a file; expected a model directory{hint * is_checkpoint}")
    if (repository := repository_of(text)) is not None:
        path = hub.download_model(repository, revision, HUB_FILES)
        if not transformers.is_transformers(path):
            return path
        return transformers.kept(path, hub_origin(repository, revision))
    raise InputError(
        f"no model is called {text!r}, and there is no such directory{known_models(text)}"
    )


def download_transformers(
    repository: str, revision: str | None = None
) -> tuple[Path, dict[str, str]]:
    """A model of Transformers from a repository on the Hub, and its origin for a config.json."""
    directory = hub.download_model(repository, revision, SMALL_FILES)
    if not transformers.is_transformers(directory):
        raise InputError(
            f"{repository} is not a model of Transformers; if it is a model directory, it needs no "
            "conversion: load it by its id"
        )
    transformers.read_transformers_config(directory)  # Before the weights are downloaded.
    directory = hub.download_model(repository, revision, HUB_FILES)
    return directory, hub_origin(repository, revision)


def hub_origin(repository: str, revision: str | None) -> dict[str, str]:
    """Where a model on the Hub comes from, for a config.json."""
    return {"repository": repository, "revision": revision or "main"}


def converted(name: str, revision: str | None = None) -> Path:
    """The converted model of a released checkpoint, from the cache or made now."""
    directory = hub.converted_directory(name, revision)
    if not (directory / CONFIG_FILE).is_file():
        checkpoint = hub.download_checkpoint(name, revision)
        logger.info("converting %s to %s", checkpoint, directory)
        try:
            origin = hub.origin(name, revision)
            convert.flax_to_mlx(checkpoint, directory, config=name, origin=origin)
        except FileExistsError:
            # Another process has converted the same checkpoint meanwhile.
            if not (directory / CONFIG_FILE).is_file():
                raise
    return directory
