"""Videos and texts to a model's arguments: all the preprocessing that features depend on.

Shapes: B batch, T frames, S size of a frame, L text positions.
"""

import dataclasses
import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import (
    CheckpointError,
    InputError,
    InputTypeError,
    VideoError,
    counted,
    excerpt,
)
from videoprism_mlx.files.atomic import new_file
from videoprism_mlx.files.checksum import CHECKSUM, require_checksum, with_checksum
from videoprism_mlx.files.reading import parse_json, read_text
from videoprism_mlx.files.record import as_json
from videoprism_mlx.models import parse_dtype
from videoprism_mlx.tokenizers import (
    C4_EN_VOCABULARY_SIZE,
    TEXT_MAX_LENGTH,
    TOKENIZER_FILE,
    KnownWords,
    SentencePieceTokenizer,
    load_text_tokenizer,
    tokenize_texts,
)
from videoprism_mlx.video.ffmpeg.decoding import PLAIN, Decoding
from videoprism_mlx.video.resize import check_size
from videoprism_mlx.video.sampling import check_fps, read_video
from videoprism_mlx.video.source import Source
from videoprism_mlx.weights.adapters import (
    adapters_directory,
    base_model,
    check_adapters,
    is_adapters,
)
from videoprism_mlx.weights.directory import PROCESSOR_FILE
from videoprism_mlx.weights.fuse import load_fused
from videoprism_mlx.weights.loading import load_with_directory, model_outline

# The prompt of the official video-text demo.
PROMPT = "a video of {}."


@dataclasses.dataclass
class Processor:
    """How videos are sampled and resized, and texts become token ids.

    `template` is the prompt, with {} for the text. `tokenizer` is a tokenizer, or a name or path
    for `load_text_tokenizer`; None for a model that takes no text. A warning names the words of
    texts that are not among `known_words`. Neither they nor `decoding` are saved.
    """

    num_frames: int = 16
    size: int = 288
    resize: str = "stretch"
    resample: str = "area"
    fps: float | None = None
    template: str = "{}"
    max_length: int = TEXT_MAX_LENGTH
    tokenizer: SentencePieceTokenizer | str | Path | None = dataclasses.field(
        default=None, repr=False, compare=False
    )
    decoding: Decoding = dataclasses.field(default=PLAIN, compare=False)
    known_words: KnownWords | None = dataclasses.field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_size(self.size, self.resize, self.resample)
        check_fps(self.fps)
        require_count("num_frames", self.num_frames)
        check_template(self.template)
        if not isinstance(self.decoding, Decoding):
            raise InputTypeError(f"decoding is {self.decoding!r}; expected a vp.Decoding")

    def __call__(
        self, videos: Sequence[Source] | None = None, texts: Sequence[str] | None = None
    ) -> dict[str, mx.array]:
        """The model's keyword arguments.

        `inputs` (B, T, S, S, 3) for the videos, and for the texts `text_token_ids` (B', L) and
        `text_paddings` (B', L).
        """
        arguments = {}
        if videos is not None:
            if isinstance(videos, (str, Path)) or len(videos) == 0:
                raise InputError(f"videos is {videos!r}; expected a list of at least one video")
            clips = [self.read(video) for video in videos]
            if len({clip.shape for clip in clips}) > 1:
                raise InputError(
                    f"the videos give clips of {sorted({len(clip) for clip in clips})} frames, "
                    "which cannot be one batch; pass them one by one"
                )
            arguments["inputs"] = mx.array(np.stack(clips))
        if texts is not None:
            ids, paddings = self.tokenize(texts)
            arguments |= {"text_token_ids": mx.array(ids), "text_paddings": mx.array(paddings)}
        return arguments

    def read(self, video: Source, **options: Any) -> npt.NDArray[np.float32]:
        """A video as a clip (T, S, S, 3); `options` go to `read_video`."""
        settings: dict[str, Any] = dict(num_frames=self.num_frames, fps=self.fps, **self.sizing())
        settings |= dataclasses.asdict(self.decoding)
        return read_video(video, **settings | options)

    def read_exactly(self, video: Source, **options: Any) -> npt.NDArray[np.float32]:
        """As `read`, but raises VideoError if the clip has fewer frames than `num_frames`.

        That happens if `fps` is set and the video is short.
        """
        clip = self.read(video, **options)
        if len(clip) != self.num_frames:
            raise VideoError(
                f"{video} has {counted(len(clip), 'frame')} at {self.fps} a second; "
                f"expected {self.num_frames}"
            )
        return clip

    def sizing(self) -> dict[str, Any]:
        """How a frame is resized."""
        return dict(size=self.size, resize=self.resize, resample=self.resample)

    def preprocessing(self, **more: Any) -> dict[str, Any]:
        """How a video becomes a clip, for a record. `more` are further settings."""
        sampling = {"frames": self.num_frames, "fps": self.fps}
        return {**sampling, **self.sizing(), **more, **self.decoding.record()}

    def tokenize(
        self, texts: Sequence[str]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Texts, each put into the template, to ids (B, L) and paddings (B, L)."""
        if isinstance(texts, str) or len(texts) == 0:
            raise InputError(f"texts is {texts!r}; expected a list of at least one string")
        for text in texts:
            check_text(text)
        prompts = [self.template.replace("{}", text) for text in texts]
        if self.known_words is not None:
            self.known_words.check(prompts)
        return tokenize_texts(self.load_tokenizer(), prompts, self.max_length)

    def load_tokenizer(self) -> SentencePieceTokenizer:
        """The tokenizer, which is read on first use, and downloaded if it has to be."""
        if self.tokenizer is None:
            raise InputError(
                f"there is no tokenizer: the model's directory has no {TOKENIZER_FILE}, or the "
                "model takes no text; use a video-text model (videoprism_lvt_*)"
            )
        if not isinstance(self.tokenizer, SentencePieceTokenizer):
            self.tokenizer = load_text_tokenizer(self.tokenizer)
        return self.tokenizer

    def settings(self) -> dict[str, Any]:
        """All settings but the tokenizer."""
        fields = dataclasses.fields(self)
        return {field.name: getattr(self, field.name) for field in fields if field.compare}

    def as_json(self) -> str:
        """The settings as a processor.json holds them."""
        return as_json(with_checksum(self.settings()), ascii=False) + "\n"

    def save(self, directory: str | Path) -> None:
        """Writes the settings into a model directory, where `load` finds them."""
        with new_file(Path(directory) / PROCESSOR_FILE) as partial:
            partial.write_text(self.as_json(), encoding="utf-8")


# Raises an error if a model with its processor cannot do what is asked of it.
Needs = Callable[[VideoPrismModel, Processor], object]


def check_text(text: str) -> None:
    """Raises InputTypeError or InputError unless this is text, which can be written as UTF-8."""
    if not isinstance(text, str):
        raise InputTypeError(f"one of the texts is {text!r}; expected a string")
    try:
        text.encode()
    except UnicodeEncodeError:  # Python's way to hold bytes of the command line that are not text.
        raise InputError(f"{text!r} is not text: it has bytes that are not UTF-8") from None


def check_template(template: str) -> None:
    """Raises InputError unless the template has a place for the text."""
    if not isinstance(template, str) or "{}" not in template:
        raise InputError(f"the template is {template!r}; expected a text with {{}} in it")


def require_count(name: str, value: Any, expected: str = "1 or more") -> None:
    """Raises InputError unless `value` is a whole number, 1 or more."""
    try:
        number = operator.index(value)
    except TypeError:
        raise InputTypeError(f"{name} is {value!r}; expected a whole number, {expected}") from None
    if number < 1:
        raise InputError(f"{name} is {value}; expected {expected}")


def load(
    name_or_dir: str | Path | None = None,
    dtype: str | mx.Dtype | None = None,
    revision: str | None = None,
    *,
    adapters: str | Path | None = None,
) -> tuple[VideoPrismModel, Processor]:
    """A model, as `load_model` gives it, and the processor that makes its arguments.

    `adapters` is a directory of adapters to add to the model's weights, or a Hub id, such as
    "you/adapters" or "you/adapters@v1". They may come with settings of the processor. With
    adapters, `name_or_dir` may be left out: it is the model that they were trained on.
    """
    model, processor, _ = load_with_settings(name_or_dir, dtype, revision, adapters)
    return model, processor


def load_with_settings(
    name_or_dir: str | Path | None,
    dtype: str | mx.Dtype | None = None,
    revision: str | None = None,
    adapters: str | Path | None = None,
    needs: Needs | None = None,
    **settings: Any,
) -> tuple[VideoPrismModel, Processor, Path]:
    """As `load`, with the model's directory. The processor gets the settings that are not None.

    `needs` is as for `check_model`.
    """
    adapters = None if adapters is None else adapters_directory(adapters)
    name_or_dir = model_name(name_or_dir, adapters)
    check_model(name_or_dir, dtype, revision, adapters, needs, **settings)
    model, directory = load_with_adapters(name_or_dir, dtype, revision, adapters)
    processor = processor_for(model, directory)
    if adapters is not None:
        processor = with_settings_of(adapters, processor)
        processor.known_words = None  # They were trained on other captions.
    if settings:
        processor = with_settings(processor, model, **settings)
    return model, processor, directory


def model_name(name_or_dir: str | Path | None, adapters: str | Path | None) -> str | Path:
    """The model, which is by default the one that the adapters were trained on."""
    if name_or_dir is not None:
        return name_or_dir
    if adapters is None:
        raise InputError("there is no model; give a name or a model directory")
    return base_model(adapters)


def check_model(
    name_or_dir: str | Path,
    dtype: str | mx.Dtype | None = None,
    revision: str | None = None,
    adapters: str | Path | None = None,
    needs: Needs | None = None,
    **settings: Any,
) -> tuple[VideoPrismModel, Processor]:
    """Raises an error if the model cannot be loaded or used like this.

    It downloads no weights and reads none. `needs` is called with the model, without its weights,
    and its processor, which are also returned; it raises an error if the model cannot do what it
    is for. The other arguments are as for `load_with_settings`.
    """
    if dtype is not None:
        parse_dtype(dtype)
    if is_adapters(name_or_dir):
        raise InputError(
            f"{name_or_dir} holds adapters and no model; give it with --adapters (adapters=...)"
        )
    model, directory = model_outline(name_or_dir, revision)
    processor = processor_for(model, directory)
    if adapters is not None:
        adapters = adapters_directory(adapters)
        check_adapters(model, adapters)
        processor = with_settings_of(adapters, processor)
    processor = with_settings(processor, model, **settings)
    if needs is not None:
        needs(model, processor)
    return model, processor


def load_with_adapters(
    name_or_dir: str | Path,
    dtype: str | mx.Dtype | None = None,
    revision: str | None = None,
    adapters: str | Path | None = None,
) -> tuple[VideoPrismModel, Path]:
    """A model, with the adapters in that directory fused, and the model's own directory."""
    if adapters is None:
        return load_with_directory(name_or_dir, dtype, revision)
    return load_fused(name_or_dir, adapters, dtype, revision)


def processor_for(model: VideoPrismModel, directory: Path | None = None) -> Processor:
    """The processor of a model. Frames and size are those of its position table.

    The model directory may hold a tokenizer, and settings that replace the model's own.
    """
    encoder = model.video_encoder
    frames, rows, _ = encoder.pos_emb_shape
    processor = Processor(num_frames=frames, size=rows * encoder.patch_size)
    if directory:
        processor = with_settings_of(directory, processor)
    if model.takes_text:
        if directory and (directory / TOKENIZER_FILE).is_file():
            processor.tokenizer = directory
            processor.known_words = KnownWords.in_directory(directory)
        elif model.text_encoder.vocabulary_size == C4_EN_VOCABULARY_SIZE:
            processor.tokenizer = "c4_en"
    return processor


def with_settings_of(directory: Path, processor: Processor) -> Processor:
    """The processor with the settings that a directory holds, if it holds some."""
    path = directory / PROCESSOR_FILE
    if not path.is_file():
        return processor
    text = read_text(path, CheckpointError)
    try:
        found = parse_json(text, "it")
        settings = {name: value for name, value in found.items() if name != CHECKSUM}
        replaced = dataclasses.replace(processor, **settings)
    except (AttributeError, TypeError, ValueError) as error:  # The file, and no bug, is the cause.
        raise CheckpointError(
            f"{path} does not contain valid settings of a processor: {excerpt(error, 200)}"
        ) from None
    require_checksum(found, path, CheckpointError)
    return replaced


def with_settings(processor: Processor, model: VideoPrismModel, **settings: Any) -> Processor:
    """The processor with the settings that are not None.

    Raises InputError unless the model takes frames of the resulting size.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    processor = dataclasses.replace(processor, **given)
    patch = model.video_encoder.patch_size
    if processor.size % patch:
        raise InputError(f"size is {processor.size}; expected a multiple of {patch}")
    return processor
