"""Models as MTEB takes them, the benchmark of embeddings: `mteb.evaluate(load(NAME), tasks)`.

Shapes: E items, T frames, H and W the height and width of a frame, D width.
"""

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx.utils import tree_flatten

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import InputError, InputTypeError
from videoprism_mlx.evaluation.published import is_rounded, released_name
from videoprism_mlx.features.encode import encode
from videoprism_mlx.features.processor import (
    Processor,
    check_model,
    load_with_settings,
    model_name,
)
from videoprism_mlx.features.text import embed_texts, require_tokenizer
from videoprism_mlx.files.record import digest
from videoprism_mlx.models import RELEASES, SHIPPED, canonical_name
from videoprism_mlx.progress import bar
from videoprism_mlx.runtime.libraries import require_library
from videoprism_mlx.video.source import Source
from videoprism_mlx.weights.adapters import adapters_directory
from videoprism_mlx.weights.hub import split_revision
from videoprism_mlx.weights.identity import ModelIdentity
from videoprism_mlx.weights.loading import repository_of
from videoprism_mlx.weights.outline import outline

if TYPE_CHECKING:
    from mteb.models import ModelMeta

__all__ = ["Encoder", "load"]

Array = npt.NDArray[np.float32]

TOWERS = ("video", "text")

# When the released models were published, as the official README says.
RELEASED = {
    "videoprism_public_v1_base": "2025-06-03",
    "videoprism_public_v1_large": "2025-06-03",
    "videoprism_lvt_public_v1_base": "2025-07-16",
    "videoprism_lvt_public_v1_large": "2025-07-16",
}

CITATION = """@inproceedings{zhao2024videoprism,
  title = {{VideoPrism}: A Foundational Visual Encoder for Video Understanding},
  author = {Long Zhao and Nitesh B. Gundavarapu and Liangzhe Yuan and Hao Zhou and Shen Yan and
            Jennifer J. Sun and Luke Friedman and Rui Qian and Tobias Weyand and Yue Zhao and
            Rachel Hornung and Florian Schroff and Ming-Hsuan Yang and David A. Ross and
            Huisheng Wang and Hartwig Adam and Mikhail Sirotenko and Ting Liu and Boqing Gong},
  booktitle = {International Conference on Machine Learning (ICML)},
  year = {2024}
}"""


def load(
    name_or_dir: str | Path | None = None,
    dtype: str | mx.Dtype | None = None,
    revision: str | None = None,
    *,
    adapters: str | Path | None = None,
    towers: Sequence[str] | None = None,
    num_frames: int | None = None,
    size: int | None = None,
    resize: str | None = None,
    resample: str | None = None,
    template: str | None = None,
    batch_size: int = 1,
) -> "Encoder":
    """A model that `mteb.evaluate` takes, for tasks of videos, of texts, or of both.

    `towers` are "video", "text" or both; by default, all that the model has. A model without text
    gives the pooled feature of a video, others the embedding. `num_frames`, `size`, `resize`,
    `resample` and `template`, if given, replace the model's own settings. `batch_size` is that of
    videos; MTEB's own is not used. The other arguments are as for `vp.load`.
    """
    require_library("mteb", "videoprism_mlx.mteb")

    def needs(model: VideoPrismModel, processor: Processor) -> None:
        for tower in checked_towers(model, towers):
            if tower == "text":
                require_tokenizer(model, processor)

    given = dict(
        num_frames=num_frames, size=size, resize=resize, resample=resample, template=template
    )
    if name_or_dir is not None:
        name_or_dir, revision = split_revision(name_or_dir, revision)
    model, processor, directory = load_with_settings(
        name_or_dir, dtype, revision, adapters, needs, **given
    )
    name = model_name(name_or_dir, adapters)
    _, own = check_model(name, dtype, revision, adapters)
    changed = {
        key: value
        for key, value in given.items()
        if value is not None and value != getattr(own, key)
    }
    folder = None if adapters is None else adapters_directory(adapters)
    identity = ModelIdentity(model, directory, str(name), folder)
    changed |= {} if dtype is None else {"dtype": identity.dtype}
    changed |= {} if adapters is None else {"adapters": str(adapters)}
    encoder = Encoder(model, processor, checked_towers(model, towers), identity, batch_size)
    encoder.changed, encoder.hub_revision = changed, revision
    return encoder


def checked_towers(model: VideoPrismModel, towers: Sequence[str] | None) -> tuple[str, ...]:
    """The towers to use, "video" first. Raises InputError unless the model has them."""
    own = TOWERS if model.takes_text else TOWERS[:1]
    if towers is None:
        return own
    named = (towers,) if isinstance(towers, str) else tuple(towers)
    if not named or not set(named) <= set(own):
        raise InputError(f"towers is {towers!r}; {model.called} has {' and '.join(map(repr, own))}")
    return tuple(tower for tower in own if tower in named)


class Encoder:
    """A model in MTEB's protocol of encoders.

    Video files are read as everywhere in this package, and not as MTEB decodes them: from the
    bytes that a dataset holds, with the model's own frames and size.
    """

    def __init__(
        self,
        model: VideoPrismModel,
        processor: Processor,
        towers: tuple[str, ...],
        identity: ModelIdentity,
        batch_size: int = 1,
    ):
        self.model = model
        self.processor = processor
        self.towers = towers
        self.identity = identity
        self.batch_size = batch_size
        self.changed: dict[str, Any] = {}  # The settings that are not the model's own.
        self.hub_revision: str | None = None

    @functools.cached_property
    def mteb_model_meta(self) -> "ModelMeta":
        """What MTEB's leaderboard says of the model."""
        return model_meta(self)

    def encode(
        self, inputs: Any, *, show_progress_bar: bool = True, **_: Any
    ) -> npt.NDArray[np.float32]:
        """The embeddings (E, D) of the items of MTEB's data loader, in their order.

        Of an item with a video and a text, it is the sum of both.
        """
        columns = columns_of(inputs)
        used = [tower for tower in self.towers if tower in columns]
        if not used:
            raise InputError(
                f"the items have {', '.join(columns)}; expected {' or '.join(self.towers)}, which "
                f"{self.model.called} takes"
            )
        embed = {"video": self._videos, "text": self._texts}
        parts = [embed[tower](inputs, show_progress_bar) for tower in used]
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """The cosines (E, E') of all pairs of two lists of embeddings, as a tensor."""
        from mteb.similarity_functions import cos_sim

        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """The cosines (E,) of the pairs of two lists of embeddings of one length, as a tensor."""
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(embeddings1, embeddings2)

    def _texts(self, inputs: Any, progress: bool) -> Array:
        texts = [str(text) for text in column(inputs, "text")]
        return embed_texts(self.model, self.processor, texts, progress=progress)

    def _videos(self, inputs: Any, progress: bool) -> Array:
        feature = self.model.default_feature
        with TemporaryDirectory(prefix="videoprism_mlx-mteb-") as folder:
            sources = self._sources(inputs, Path(folder))
            total = len(inputs.dataset)
            rows = []
            encoded = encode(self.model, self.processor, sources, self.batch_size)
            for one in bar(encoded, "videos", "video", total=total, show=progress):
                rows.append(one.features[feature].astype(np.float32))
                if isinstance(one.source, Path) and one.source.parent == Path(folder):
                    one.source.unlink()
        return np.stack(rows)

    def _sources(self, inputs: Any, folder: Path) -> Iterator[Source]:
        """The videos of a data loader. Those that are no files are written to the folder."""
        frames = None if self.processor.fps is not None else self.processor.num_frames
        for number, item in enumerate(column(inputs, "video")):
            yield source_of(item, folder / f"video-{number}", frames)


def columns_of(inputs: Any) -> list[str]:
    """What each item of a data loader has: "video", "text" and others."""
    names: Any = getattr(inputs.dataset, "column_names", None)
    return list(inputs.dataset[0] if names is None else names)


def column(inputs: Any, name: str) -> Iterator[Any]:
    """What the items of a data loader have under a name, in their order.

    Videos of a Hugging Face dataset are not decoded. They come as the dataset holds them.
    """
    dataset = inputs.dataset
    if hasattr(dataset, "column_names") and hasattr(dataset, "select_columns"):
        dataset = dataset.select_columns([name])
        if type(dataset.features[name]).__name__ == "Video":
            from datasets import Video

            dataset = dataset.cast_column(name, Video(decode=False))
        return (row[name] for row in dataset)
    return itertools.chain.from_iterable(batch[name] for batch in inputs)


def source_of(item: Any, new: Path, frames: int | None) -> Source:
    """A video of a dataset in a form that `read_video` takes.

    It may be a path, the bytes of a file, a dictionary of both, an array or a tensor of frames
    (T, 3, H, W) or (T, H, W, 3), or a decoder of torchcodec, which gives `frames` frames spread
    evenly, or all. Bytes are written to `new`, to which the ending of the path is added.
    """
    if isinstance(item, (str, Path)):
        return Path(item)
    if isinstance(item, bytes):
        item = {"bytes": item}
    if isinstance(item, Mapping) and ("bytes" in item or "path" in item):
        path, content = item.get("path"), item.get("bytes")
        if content is None and path is not None and Path(path).is_file():
            return Path(path)
        if content is None:
            content = downloaded(path)
        file = new.with_name(new.name + Path(path or "video.mp4").suffix)
        file.write_bytes(content)
        return file
    if hasattr(item, "get_frames_at"):
        count = item.metadata.num_frames
        numbers = np.linspace(0, count, frames or count, endpoint=False).astype(int)
        item = item.get_frames_at(numbers.tolist()).data
    if getattr(item, "ndim", None) != 4:
        raise InputTypeError(
            f"a video of the dataset is a {type(item).__name__}; expected a file, its bytes, or "
            "frames (T, 3, H, W)"
        )
    array = np.asarray(item)
    return np.moveaxis(array, 1, -1) if array.shape[1] == 3 != array.shape[-1] else array


def downloaded(path: str | None) -> bytes:
    """The content of a file that a dataset names and does not hold."""
    import fsspec

    if path is None:
        raise InputError("a video of the dataset has neither bytes nor a path")
    with fsspec.open(path, "rb") as file:
        content: bytes = file.read()
    return content


def model_meta(encoder: Encoder) -> "ModelMeta":
    """What MTEB's leaderboard says of a model.

    The revision is the checksum of the weights. The settings that were changed are
    `experiment_kwargs`, by which MTEB keeps results apart.
    """
    from mteb.models.model_meta import ModelMeta, ScoringFunction

    model, identity, towers = encoder.model, encoder.identity, encoder.towers
    given = str(identity.name)
    known = canonical_name(given)
    if identity.adapters_directory is None:
        known = known or released_name(model)
    release = RELEASES.get(known or "")
    arrays: Any = tree_flatten(model.parameters())
    modalities: Any = list(towers)
    revision = identity.weights
    if identity.adapters is not None:
        revision = digest([revision, identity.adapters])
    return ModelMeta(
        loader=load_for_mteb,
        loader_kwargs={
            "name_or_dir": given,
            "hub_revision": encoder.hub_revision,
            "towers": modalities,
            "batch_size": encoder.batch_size,
        },
        name=public_name(given, None if is_rounded(model) else known),
        revision=revision,
        release_date=RELEASED.get(known or ""),
        languages=["eng-Latn"],
        n_parameters=sum(map(math.prod, outline(model.config).shapes.values())),
        n_embedding_parameters=embedding_parameters(model),
        memory_usage_mb=round(sum(array.nbytes for _, array in arrays) / 2**20, 1),
        max_tokens=encoder.processor.max_length if "text" in towers else None,
        embed_dim=model.video_encoder.spatial_ln.weight.size,
        license="apache-2.0" if known is not None else None,
        open_weights=known is not None or repository_of(given) is not None,
        public_training_code=None,
        public_training_data=None,
        framework=["safetensors"],  # Its list has no MLX.
        reference=None if release is None else f"https://huggingface.co/{release.repository}",
        similarity_fn_name=ScoringFunction.COSINE,
        use_instructions=False,
        # The drawn clips are no task of MTEB. What the released models have seen is not published.
        training_datasets=set() if known in SHIPPED else None,
        adapted_from=None if release is None else release.repository,
        modalities=modalities,
        citation=CITATION if release is not None else None,
        experiment_kwargs=encoder.changed or None,
    )


def embedding_parameters(model: VideoPrismModel) -> int | None:
    """The number of parameters in the table of token embeddings; None without one."""
    if not model.takes_text:
        return None
    config = model.config
    return int(config["vocabulary_size"] * config["model_dim"])


def public_name(given: str, known: str | None) -> str:
    """The name in MTEB's form, owner/name: a model on the Hub has it, others get an owner.

    `known` is the name of a released model, if its weights are as they were.
    """
    if known is None and repository_of(given) is not None:
        return given
    return f"videoprism_mlx/{known or Path(given).resolve().name}"


def load_for_mteb(
    name: str,
    revision: str | None = None,
    device: str | None = None,
    *,
    hub_revision: str | None = None,
    **settings: Any,
) -> Encoder:
    """Loads a model again, as its metadata says. MLX chooses the device."""
    return load(revision=hub_revision, **settings)
