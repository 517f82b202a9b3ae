"""Which models there are, and which of them are on this machine."""

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from mlx.utils import tree_flatten

from videoprism_mlx.models import CONFIGS, RELEASES, SHIPPED, build, get_config
from videoprism_mlx.weights import hub
from videoprism_mlx.weights.directory import CONFIG_FILE


class KnownModel(NamedTuple):
    """A model that can be named.

    `weights` is "published", "shipped" with the package, or None. `directory` is where the model
    is on this machine, of `bytes` bytes; None if it is not there. `checkpoint` is the official
    file in Hugging Face's cache, from which the directory is made, of `checkpoint_bytes` bytes.
    """

    name: str
    kind: str
    parameters: int
    weights: str | None
    directory: Path | None = None
    bytes: int = 0
    checkpoint: Path | None = None
    checkpoint_bytes: int = 0


def list_models() -> list[KnownModel]:
    """All models that can be named, those with weights first. It downloads nothing."""
    released = [one for name in RELEASES for one in known_release(name)]
    shipped = [
        known(name, "shipped", directory=path, bytes=size_of(path))
        for name, path in SHIPPED.items()
    ]
    others = [known(name, None) for name in CONFIGS if name not in RELEASES | SHIPPED]
    return [*released, *shipped, *others]


def known_release(name: str) -> Iterator[KnownModel]:
    """A released model, and each other revision of it that is kept on this machine."""
    place = hub.converted_directory(name)
    directory = place if (place / CONFIG_FILE).is_file() else None
    checkpoint = cached_checkpoint(name)
    yield known(
        name,
        "published",
        directory=directory,
        bytes=size_of(directory),
        checkpoint=checkpoint,
        checkpoint_bytes=size_of(checkpoint),
    )
    for revision in sorted(place.parent.glob(f"{name}@*/{CONFIG_FILE}")):
        kept = revision.parent
        model = known(name, "published", directory=kept, bytes=size_of(kept))
        yield model._replace(name=kept.name)


def known(name: str, weights: str | None, **kept: Any) -> KnownModel:
    """The model of that name."""
    model = build(get_config(name))
    arrays: Any = tree_flatten(model.parameters())
    parameters = sum(math.prod(array.shape) for _, array in arrays)
    return KnownModel(name, type(model).__name__, parameters, weights, **kept)


def cached_checkpoint(name: str) -> Path | None:
    """The official file of a released model in Hugging Face's cache; None if it is not there."""
    import huggingface_hub

    repository, filename = RELEASES[name]
    found = huggingface_hub.try_to_load_from_cache(repository, filename)
    return Path(found) if isinstance(found, str) else None


def size_of(path: Path | None) -> int:
    """The bytes of a file, or of the files in a folder. A file that goes away has none."""
    if path is None:
        return 0
    size = 0
    for each in (path, *path.rglob("*")):
        with suppress(OSError):
            size += each.stat().st_size if each.is_file() else 0
    return size
