"""The model of a library, and how it reads videos: what its record says of them."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import EXPECTED, InputError, LibraryError, excerpt
from videoprism_mlx.features.encode import check_features
from videoprism_mlx.features.processor import (
    Processor,
    check_model,
    load_with_settings,
    model_name,
    with_settings,
)
from videoprism_mlx.features.windows import check_windowing
from videoprism_mlx.files.places import user_path
from videoprism_mlx.files.record import differences
from videoprism_mlx.models import canonical_name
from videoprism_mlx.video.ffmpeg.decoding import Decoding
from videoprism_mlx.weights.adapters import ADAPTERS_FILE, adapters_directory
from videoprism_mlx.weights.directory import WEIGHTS_FILE
from videoprism_mlx.weights.hub import split_revision
from videoprism_mlx.weights.identity import ModelIdentity
from videoprism_mlx.weights.integrity import known_checksum
from videoprism_mlx.weights.loading import repository_of

# How long a window is by default, in seconds.
SECONDS = 4

# The settings of a processor that a record holds, besides those of windows.
SIZING = ("size", "resize", "resample")

# Of a model's identity. `parameters` depends on the adapters too.
FIELDS = ("name", "class", "parameters", "dtype", "precision")

Model = str | Path | tuple[VideoPrismModel, Processor]


@dataclasses.dataclass(frozen=True)
class Reading:
    """How videos are read: windows of `window` frames, `fps` a second, every `stride` frames."""

    window: int
    stride: int
    fps: float
    partial: bool
    processor: Processor

    def preprocessing(self) -> dict[str, Any]:
        """These settings, for the record."""
        windows = {"window": self.window, "stride": self.stride, "fps": float(self.fps)}
        processor = self.processor
        return {
            **windows,
            **processor.sizing(),
            "partial": self.partial,
            **processor.decoding.record(),
        }


class LibraryModel:
    """A model that is loaded on first use, and its way of reading videos.

    Before that, `outline` is the model without its weights. `settings` are arguments of
    `Library.add`; what is None is as usual.
    """

    def __init__(
        self,
        model: Model | None,
        dtype: str | None = None,
        adapters: str | Path | None = None,
        **settings: Any,
    ):
        self._model, self._dtype, self._adapters = model, dtype, adapters
        self._folder: Path | None = None  # Of the adapters.
        self._loaded: VideoPrismModel | None = None
        self._expected: tuple[str, Mapping[str, Any]] | None = None
        if isinstance(model, tuple):
            for name, value in (("dtype", dtype), ("adapters", adapters)):
                if value is not None:
                    raise InputError(f"{name} has no effect on a loaded model; leave it out")
            require_searchable(*model)
            self.outline, self._usual = model
        else:
            self._folder = None if adapters is None else adapters_directory(adapters)
            self._model = model_name(model, self._folder)
            self.outline, self._usual = check_model(
                self._model, dtype, None, self._folder, require_searchable
            )
        self.configure(**settings)

    def configure(
        self,
        size: int | None = None,
        resize: str | None = None,
        resample: str | None = None,
        decoding: Decoding | None = None,
        **windows: Any,
    ) -> None:
        """Sets how videos are read. What is None is as usual."""
        sizing = dict(size=size, resize=resize, resample=resample)
        processor = with_settings(self._usual, self.outline, **sizing, decoding=decoding)
        self.reading = reading_of(processor, **windows)

    @property
    def loaded(self) -> VideoPrismModel | None:
        """The model, if it is in memory."""
        return self._model[0] if isinstance(self._model, tuple) else self._loaded

    @property
    def dimension(self) -> int:
        """The width D of an embedding."""
        return int(self.outline.config["model_dim"])

    def load(self) -> VideoPrismModel:
        """The model with its weights."""
        if isinstance(self._model, tuple):
            return self._model[0]
        if self._loaded is None:
            name = model_name(self._model, self._folder)
            self._loaded, _, _ = load_with_settings(name, self._dtype, adapters=self._folder)
            self._require_same_weights()
        return self._loaded

    def expect(self, where: str, record: Mapping[str, Any]) -> None:
        """From now on, `load` raises LibraryError if the weights are not those of this library."""
        self._expected = where, record

    def _require_same_weights(self) -> None:
        """The files are compared and, if they differ, the parameters."""
        if self._expected is None:
            return
        where, record = self._expected
        if record.get("source", {}).get("files") in (None, self.files()):
            return
        before, now = record["model"].get("parameters"), self.identity["parameters"]
        if before != now:
            self._loaded = None
            raise LibraryError(
                f"the library {where} was made with other weights than {excerpt(self._model)} has "
                f"now (checksum {excerpt(before, 12)}, now {now[:12]}). Bring the earlier ones "
                "back, or index the videos into a new library (--library)"
            )

    def files(self) -> dict[str, str]:
        """The checksums of the files that hold the weights, which are remembered."""
        directory = self.load().directory
        paths = {} if directory is None else {"weights": directory / WEIGHTS_FILE}
        if self._folder is not None:
            paths["adapters"] = self._folder / ADAPTERS_FILE
        return {name: known_checksum(path) for name, path in paths.items()}

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What distinguishes the model from others. The model is loaded for that."""
        name = None if isinstance(self._model, tuple) else str(self._model)
        return ModelIdentity(self.load(), name=name).record(*FIELDS)

    def record(self) -> dict[str, Any]:
        """The record of a library that is made with it. The model is loaded for that."""
        made = {"model": self.identity, "preprocessing": self.reading.preprocessing()}
        return {**made, "source": self.source()}

    def source(self) -> dict[str, Any]:
        """Where the model is loaded from, for the record; None if no file holds its weights."""
        if isinstance(self._model, tuple):
            directory, dtype = self._model[0].directory, self.identity["dtype"]
            if directory is not None and self._is_stored(directory, dtype):
                stored = str(directory.absolute())
                return {"model": stored, "dtype": dtype, "adapters": None, "files": self.files()}
            return {"model": None}
        adapters = self._adapters
        return {
            "model": lasting_name(str(self._model)),
            "dtype": self._dtype,
            "adapters": None if adapters is None else lasting_name(str(adapters)),
            "files": self.files(),
        }

    def _is_stored(self, directory: Path, dtype: str) -> bool:
        """Whether a directory holds the parameters that are in memory, which may have changed."""
        try:
            stored, _, _ = load_with_settings(directory, dtype)
        except EXPECTED:  # It was removed, or holds something else now.
            return False
        return bool(ModelIdentity(stored).parameters == self.identity["parameters"])

    def require_model(self, where: str, record: Mapping[str, Any]) -> None:
        """Raises LibraryError if a library was made with another model."""
        self._require(where, record, "model", self.identity)

    def require_reading(self, where: str, record: Mapping[str, Any]) -> None:
        """Raises LibraryError if the videos of a library were read otherwise."""
        self._require(where, record, "preprocessing", self.reading.preprocessing())

    def _require(
        self, where: str, record: Mapping[str, Any], part: str, now: Mapping[str, Any]
    ) -> None:
        if differing := differences({part: record.get(part, {})}, {part: now}):
            name = record["model"].get("name")
            model = f" (its model is {excerpt(name)})" if name else ""
            raise LibraryError(
                f"the library {where} was made with other settings{model}: "
                f"{'; '.join(differing)}. Leave them out to use the library's, or name another "
                "library (--library)"
            )


def lasting_name(name_or_dir: str) -> str:
    """A name or Hub id as it is, and a path as an absolute one."""
    name, _ = split_revision(name_or_dir)
    is_name = canonical_name(name) is not None or repository_of(name_or_dir) is not None
    return name_or_dir if is_name else str(user_path(name_or_dir).absolute())


def require_searchable(model: VideoPrismModel, processor: Processor | None = None) -> None:
    """Raises InputError unless the model compares videos with texts."""
    check_features(model, ["embedding"])


def reading_of(
    processor: Processor,
    window: int | None = None,
    stride: int | None = None,
    fps: float | None = None,
    partial: bool | None = None,
) -> Reading:
    """How videos are read. By default a window has the model's number of frames, and lasts 4 s."""
    window = processor.num_frames if window is None else window
    stride = window if stride is None else stride
    fps = processor.num_frames / SECONDS if fps is None else fps
    check_windowing(window, stride, fps)
    return Reading(window, stride, float(fps), bool(partial), processor)


def recorded_model(
    where: str,
    record: Mapping[str, Any],
    model: Model | None = None,
    dtype: str | None = None,
    adapters: str | Path | None = None,
    **given: Any,
) -> LibraryModel:
    """The model of a library. What is None is the library's.

    Raises LibraryError if something that is given differs from the record.
    """
    is_given = not (model is None and dtype is None and adapters is None)
    if model is None and adapters is None:
        source = record.get("source", {})
        model, adapters = source.get("model"), source.get("adapters")
        dtype = source.get("dtype") if dtype is None else dtype
        if model is None:
            raise LibraryError(
                f"the library {where} was made with a model in memory; give that model"
            )
    chosen = LibraryModel(model, dtype, adapters)
    if is_given:
        chosen.require_model(where, record)
    else:
        chosen.expect(where, record)
    chosen.configure(**recorded_settings(record) | given)
    chosen.require_reading(where, record)
    return chosen


def recorded_settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """How a library reads videos, as arguments of `LibraryModel.configure`."""
    preprocessing = record["preprocessing"]
    names = {field.name for field in dataclasses.fields(Decoding)} & preprocessing.keys()
    decoding = Decoding(**{name: preprocessing[name] for name in names})
    kept = {name: preprocessing[name] for name in ("window", "stride", "fps", "partial", *SIZING)}
    return {**kept, "decoding": decoding}


def load_recorded(record: Mapping[str, Any], where: str = "") -> tuple[VideoPrismModel, Processor]:
    """The model of a library, with its processor. `where` is for messages."""
    chosen = recorded_model(where, record)
    return chosen.load(), chosen.reading.processor
