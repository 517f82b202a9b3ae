"""What belongs to a model beside its weights: the processor, the tokenizer, the names of classes.

Both ways, between the files that Transformers reads and those of a model directory.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from videoprism_mlx.convert.transformers.tokenizer import (
    SPIECE_FILE,
    TOKENIZER_CONFIG,
    TOKENIZER_JSON,
    read_tokenizer,
    tokenizer_files,
)
from videoprism_mlx.convert.transformers.weights import INDEX_FILE
from videoprism_mlx.errors import CheckpointError, excerpt, shown
from videoprism_mlx.files.checksum import CHECKSUM, require_checksum, with_checksum
from videoprism_mlx.files.reading import read_bytes, read_json_object
from videoprism_mlx.files.record import as_json
from videoprism_mlx.tokenizers import TEXT_MAX_LENGTH, TOKENIZER_FILE
from videoprism_mlx.weights.directory import (
    CONFIG_FILE,
    LABELS_FILE,
    PROCESSOR_FILE,
    WEIGHTS_FILE,
)

PROCESSOR_CONFIG = "processor_config.json"
VIDEO_CONFIGS = ("video_preprocessor_config.json", "preprocessor_config.json")

# Every file that a model of Transformers may have, but for shards of weights.
FILES = (
    *(CONFIG_FILE, WEIGHTS_FILE, INDEX_FILE),
    *(PROCESSOR_CONFIG, *VIDEO_CONFIGS),
    *(TOKENIZER_JSON, TOKENIZER_CONFIG, SPIECE_FILE, TOKENIZER_FILE, "tokenizer.model"),
)

# A larger number of frames, pixels or tokens says that there is no limit.
MOST = 2**16

# Pillow's numbers of ways to resample. It has no average of areas like OpenCV's: bilinear is close.
LANCZOS, BILINEAR = 1, 2

logger = logging.getLogger(__name__)


def implied_processor(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the processor that a configuration implies."""
    settings: dict[str, Any] = dict(resize="stretch", resample="area", fps=None)
    settings |= dict(template="{}", max_length=TEXT_MAX_LENGTH)
    vision = config.get("encoder_params", config)
    if "patch_size" in vision:
        frames, rows, _ = vision["pos_emb_shape"]
        settings |= dict(num_frames=frames, size=rows * vision["patch_size"])
    return settings


def read_processor(directory: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the processor of a model directory, by our names."""
    path = directory / PROCESSOR_FILE
    settings = implied_processor(config)
    if path.is_file():
        found = read_json_object(path, CheckpointError)
        require_checksum(found, path, CheckpointError)
        settings |= {name: value for name, value in found.items() if name != CHECKSUM}
        for name in ("num_frames", "size", "max_length"):
            if not is_count(settings.get(name, 1)):
                raise CheckpointError(
                    f"{path}: {name} is {shown(settings[name])}; expected a whole number above zero"
                )
    return settings


def own_files(
    directory: Path, config: Mapping[str, Any], described: Mapping[str, Any]
) -> Iterator[tuple[str, bytes]]:
    """The files of a model directory for what Transformers has in `directory`: name and content.

    `described` is what config.json holds there.
    """
    implied = implied_processor(config)
    settings = implied | own_video_settings(directory, config) | own_text_settings(directory)
    if settings != implied:
        yield PROCESSOR_FILE, as_bytes(settings)
    if "vocabulary_size" in config:
        tokenizer = read_tokenizer(directory, config["vocabulary_size"])
        if tokenizer is not None:
            yield TOKENIZER_FILE, tokenizer
    names = described.get("id2label")
    if config["model"] == "FactorizedVideoClassifier" and isinstance(names, Mapping):
        labels = [names.get(str(number)) for number in range(len(names))]
        if labels != [f"LABEL_{number}" for number in range(len(names))]:
            from videoprism_mlx.datasets.labels import checked_names  # It imports OpenCV.

            labels = list(checked_names(labels, directory / CONFIG_FILE))
            multi = described.get("problem_type") == "multi_label_classification"
            yield LABELS_FILE, as_bytes({"labels": labels, "multi_label": multi})


def own_video_settings(directory: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings for videos: those that Transformers has in a directory."""
    found: Any = {}
    for name in (PROCESSOR_CONFIG, *VIDEO_CONFIGS):
        if (directory / name).is_file():
            found = read_json_object(directory / name, CheckpointError)
            found = found.get("video_processor", found)
            break
    if not isinstance(found, Mapping) or "num_frames" not in implied_processor(config):
        return {}
    if found.get("do_normalize") or found.get("do_rescale") is False:
        logger.warning(
            "%s normalizes pixels or does not scale them to 0 to 1, as VideoPrism expects them; "
            "that is left out",
            directory,
        )
    settings: dict[str, Any] = {}
    size, patch = found.get("size"), config.get("encoder_params", config)["patch_size"]
    sides: list[Any] = list(size.values()) if isinstance(size, Mapping) else [size]
    is_square = bool(sides) and is_count(sides[0]) and all(side == sides[0] for side in sides)
    if is_square and sides[0] <= MOST and sides[0] % patch == 0:
        settings["size"] = sides[0]
    elif size is not None:
        logger.warning(
            "%s: the size %s is left out; it is no square of patches", directory, shown(size)
        )
    if found.get("do_center_crop"):
        settings["resize"] = "crop"
    if found.get("resample") == LANCZOS:
        settings["resample"] = "lanczos"
    if is_count(found.get("num_frames")) and found["num_frames"] <= MOST:
        settings["num_frames"] = found["num_frames"]
    if isinstance(found.get("fps"), (int, float)) and found["fps"] is not True and found["fps"] > 0:
        settings["fps"] = found["fps"]
    return settings


def own_text_settings(directory: Path) -> dict[str, Any]:
    """Our settings for texts: those that Transformers has in a directory."""
    path = directory / TOKENIZER_CONFIG
    found = read_json_object(path, CheckpointError) if path.is_file() else {}
    length = found.get("model_max_length")
    # Without a limit, Transformers writes a very large number.
    return {"max_length": length} if is_count(length) and length <= MOST else {}


def is_count(value: Any) -> TypeGuard[int]:
    """Whether a value is a whole number above zero."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def as_bytes(settings: Mapping[str, Any]) -> bytes:
    """The content of a JSON file of a model directory."""
    return (as_json(with_checksum(settings), ascii=False) + "\n").encode()


def transformers_files(
    directory: Path, config: Mapping[str, Any], tokenizer: Path | None
) -> Iterator[tuple[str, bytes]]:
    """The files for Transformers of what a model directory has: name and content."""
    settings = read_processor(directory, config)
    video = video_processor(settings) if "num_frames" in settings else None
    if "vocabulary_size" not in config:
        yield VIDEO_CONFIGS[0], json_bytes(video)
        return
    if video is not None:
        described = {"processor_class": "VideoPrismProcessor", "video_processor": video}
        yield PROCESSOR_CONFIG, json_bytes(described)
    if tokenizer is None:
        return
    model = read_bytes(tokenizer, CheckpointError)
    try:
        files = tokenizer_files(model, settings["max_length"])
    except ValueError as error:
        raise CheckpointError(
            f"{tokenizer} is not a SentencePiece model, or damaged ({excerpt(error)})"
        ) from None
    if files is None:
        logger.warning(
            "%s is left out: unlike VideoPrism's, it is no unigram model, or has a begin token or "
            "special pieces",
            tokenizer,
        )
        return
    yield SPIECE_FILE, model
    for name, text in files.items():
        yield name, text.encode()


def video_processor(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Transformers' settings of the video processor. Pixels go from 0 to 1."""
    size = settings["size"]
    square = {"height": size, "width": size}
    cropped = {"do_center_crop": True, "crop_size": square, "size": {"shortest_edge": size}}
    return {
        "video_processor_type": "LlavaOnevisionVideoProcessor",
        "do_convert_rgb": True,
        "do_normalize": False,
        "do_rescale": True,
        "do_resize": True,
        "do_sample_frames": False,
        "num_frames": settings["num_frames"],
        "resample": LANCZOS if settings["resample"] == "lanczos" else BILINEAR,
        "rescale_factor": 1 / 255,
        "size": square,
        **(cropped if settings["resize"] == "crop" else {}),
        **({} if settings["fps"] is None else {"fps": settings["fps"]}),
    }


def label_settings(directory: Path, count: int) -> dict[str, Any]:
    """What Transformers' config.json says about the classes of a classifier."""
    path = directory / LABELS_FILE
    names: Any = [f"LABEL_{number}" for number in range(count)]
    settings = {}
    if path.is_file():
        found = read_json_object(path, CheckpointError)
        require_checksum(found, path, CheckpointError)
        names = found.get("labels")
        if not isinstance(names, list) or len(names) != count:
            raise CheckpointError(f"{path}: labels is {shown(names)}; expected {count} names")
        kind = "multi" if found.get("multi_label") else "single"
        settings = {"problem_type": f"{kind}_label_classification"}
    return settings | {
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }


def json_bytes(value: Any) -> bytes:
    """The content of a JSON file for Transformers."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
