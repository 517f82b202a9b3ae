"""Videos and texts to a model's arguments: all the preprocessing that a feature depends on.

Shapes: B batch, T frames, S size of a frame, L text positions.
"""

import dataclasses
import json
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import CheckpointError, InputError, VideoError
from videoprism_mlx.files.atomic import new_file
from videoprism_mlx.tokenizers import (
    C4_EN_VOCABULARY_SIZE,
    TEXT_MAX_LENGTH,
    TOKENIZER_FILE,
    SentencePieceTokenizer,
    load_text_tokenizer,
    tokenize_texts,
)
from videoprism_mlx.video.sampling import Source, check_fps, check_size, read_video
from videoprism_mlx.weights.directory import PROCESSOR_FILE
from videoprism_mlx.weights.loading import load_with_directory

# The prompt of the official video-text demo.
PROMPT = "a video of {}."


@dataclasses.dataclass
class Processor:
    """How videos are sampled and resized, and texts put into words and ids.

    `tokenizer` is one, or what `load_text_tokenizer` makes one of; None for a model without text.
    `template` has a {} for the text.
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

    def __post_init__(self) -> None:
        check_size(self.size, self.resize, self.resample)
        check_fps(self.fps)
        if operator.index(self.num_frames) < 1:
            raise InputError(f"num_frames is {self.num_frames}; expected 1 or more")
        check_template(self.template)

    def __call__(
        self, videos: Sequence[Source] | None = None, texts: Sequence[str] | None = None
    ) -> dict[str, mx.array]:
        """The model's keyword arguments: `inputs` (B, T, S, S, 3), and ids and paddings (B', L)."""
        arguments = {}
        if videos is not None:
            if isinstance(videos, (str, Path)) or len(videos) == 0:
                raise InputError(f"videos is {videos!r}; expected a list of at least one video")
            clips = [self.read(video) for video in videos]
            if len({clip.shape for clip in clips}) > 1:
                raise InputError(
                    f"the videos give clips of {sorted({len(clip) for clip in clips})} frames, "
                    "which do not make a batch; pass them one by one"
                )
            arguments["inputs"] = mx.array(np.stack(clips))
        if texts is not None:
            ids, paddings = self.tokenize(texts)
            arguments |= {"text_token_ids": mx.array(ids), "text_paddings": mx.array(paddings)}
        return arguments

    def read(self, video: Source, **options: Any) -> np.ndarray:
        """A video as a clip (T, S, S, 3); `options` go to `read_video`."""
        settings = dict(num_frames=self.num_frames, fps=self.fps, **self.sizing())
        return read_video(video, **settings | options)

    def read_exactly(self, video: Source, **options: Any) -> np.ndarray:
        """As `read`, a clip of `num_frames` or a VideoError: at a rate, a short video has fewer."""
        clip = self.read(video, **options)
        if len(clip) != self.num_frames:
            raise VideoError(
                f"{video} has {len(clip)} frames at {self.fps} a second; expected {self.num_frames}"
            )
        return clip

    def sizing(self) -> dict[str, Any]:
        """How a frame is brought to size."""
        return dict(size=self.size, resize=self.resize, resample=self.resample)

    def preprocessing(self, **more: Any) -> dict[str, Any]:
        """How a video becomes a clip, for a record; `more` is what the processor does not know."""
        return {"frames": self.num_frames, "fps": self.fps, **self.sizing(), **more}

    def tokenize(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Texts, each put into the template, to ids (B, L) and paddings (B, L)."""
        if self.tokenizer is None:
            raise InputError("this model takes no text; use a video-text model (videoprism_lvt_*)")
        if isinstance(texts, str) or len(texts) == 0:
            raise InputError(f"texts is {texts!r}; expected a list of at least one string")
        if not isinstance(self.tokenizer, SentencePieceTokenizer):
            self.tokenizer = load_text_tokenizer(self.tokenizer)
        prompts = [self.template.replace("{}", text) for text in texts]
        return tokenize_texts(self.tokenizer, prompts, self.max_length)

    def settings(self) -> dict[str, Any]:
        """Everything but the tokenizer, for a record of how features were made."""
        fields = dataclasses.fields(self)
        return {field.name: getattr(self, field.name) for field in fields if field.compare}

    def save(self, directory: str | Path) -> None:
        """Writes the settings into a model directory, where `load` finds them."""
        with new_file(Path(directory) / PROCESSOR_FILE) as partial:
            partial.write_text(json.dumps(self.settings(), indent=2) + "\n", encoding="utf-8")


def check_template(template: str) -> None:
    """That there is a place for the text."""
    if not isinstance(template, str) or "{}" not in template:
        raise InputError(f"the template is {template!r}; expected a text with {{}} in it")


def load(
    name_or_dir: str | Path, dtype: str | mx.Dtype | None = None, revision: str | None = None
) -> tuple[VideoPrismModel, Processor]:
    """A model, as `load_model` gives it, and the processor that makes its arguments."""
    model, directory = load_with_directory(name_or_dir, dtype, revision)
    return model, processor_for(model, directory)


def processor_for(model: VideoPrismModel, directory: Path | None = None) -> Processor:
    """The processor of a model: frames and size are those of its position table.

    In `directory` are its tokenizer and, where they are other than that, its settings.
    """
    encoder = model.video_encoder
    frames, rows, _ = encoder.pos_emb_shape
    processor = Processor(num_frames=frames, size=rows * encoder.patch_size)
    if directory:
        processor = with_settings_of(directory, processor)
    if model.takes_text:
        if directory and (directory / TOKENIZER_FILE).is_file():
            processor.tokenizer = directory
        elif model.text_encoder.vocabulary_size == C4_EN_VOCABULARY_SIZE:
            processor.tokenizer = "c4_en"
    return processor


def with_settings_of(directory: Path, processor: Processor) -> Processor:
    """A processor with the settings that are kept in a directory, if there are any."""
    path = directory / PROCESSOR_FILE
    if not path.is_file():
        return processor
    try:
        return dataclasses.replace(processor, **json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not describe a processor: {error}") from None
