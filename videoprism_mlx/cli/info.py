"""`videoprism-mlx info`: what a model is and needs, or what a video file holds."""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videoprism_mlx.cli import shared
from videoprism_mlx.cli.program.completion import models_and_files
from videoprism_mlx.errors import InputError, abridged
from videoprism_mlx.video.find import local_path

if TYPE_CHECKING:
    from videoprism_mlx.weights.catalogue import KnownModel


# What the classes of models are.
KINDS = {
    "FactorizedEncoder": "video encoder",
    "FactorizedVideoCLIP": "video-text model",
    "FactorizedVideoClassifier": "classifier",
    "TextEncoder": "text encoder",
}

# What config.json says under "source": the key, its title, and the key of its checksum.
SOURCES = (
    ("trained_from", "trained from", None),
    ("base", "fused from", "base_weights"),
    ("adapters", "adapters", None),
    ("quantized_from", "quantized from", "quantized_from_weights"),
    ("dequantized_from", "dequantized", "dequantized_from_weights"),
    ("repository", "repository", None),
    ("revision", "revision", None),
    ("file", "checkpoint", "sha256"),
    ("layout", "layout", None),
    ("converter", "converted by", None),
)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "info",
        help="print what a model is and needs, or what a video file contains",
        description="Describes a model, by its name or in a directory, or a video file: its "
        "streams, codec, size, frame rate, length and colours, and whether it is whole. Without "
        "a name, it lists the models. It downloads nothing. The exit code is 1 if the file is "
        "damaged.",
        epilog="examples:\n"
        "  videoprism-mlx info\n"
        "  videoprism-mlx info videoprism_lvt_public_v1_base --verify\n"
        "  videoprism-mlx info clip.mp4",
    )
    option: Any = parser.add_argument(
        "model",
        nargs="?",
        metavar="NAME|DIR|VIDEO",
        help="a model's name, a model directory, or a video file (default: list the models)",
    )
    option.completer = models_and_files
    shared.add_revision(parser)
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read all weights of a model that is on this machine: look for NaN, and compare their "
        "checksum with the one in config.json",
    )
    shared.add_json(parser)
    shared.add_stream(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.model is None:
        if options.verify or options.revision is not None:
            name = "--verify" if options.verify else "--revision"
            raise InputError(f"{name} needs the name or the directory of a model")
        return run_list(options)
    from videoprism_mlx.errors import printable

    path = local_path(options.model)
    if path.is_file():
        if path.suffix in (".npz", ".safetensors"):
            raise InputError(
                f"{path} is a file of arrays; expected a model's name, a model directory or a "
                f"video. A Flax checkpoint is converted with `videoprism-mlx convert {path}`"
            )
        if options.verify or options.revision is not None:
            name = "--verify" if options.verify else "--revision"
            raise InputError(f"{name} is for models; leave it out for a video")
        return run_video(path, options)
    model = shared.with_revision(options.model, options)
    require_model(model)
    described = describe(model)
    if options.verify:
        described["verified"] = verify(model)
    if options.json:
        shared.print_json(described)
        return 0
    for name, row in model_rows(described):
        print(f"{printable(name):16}{printable(row)}")
    return 0


def model_rows(described: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The lines about a model: a name and what there is to say."""
    for key, value in described.items():
        if key == "model":
            yield "model", f"{KINDS[value]} ({value})" if value in KINDS else str(value)
        elif key == "source" and isinstance(value, Mapping):
            yield from source_rows(value)
        elif key == "weights_bytes":
            sizes = (f"{megabytes(size)} {dtype}" for dtype, size in value.items())
            yield "weights", ", ".join(sizes)
        elif key == "verified":
            same = "as config.json says" if value["compared"] else "with no checksum to compare"
            yield "verified", f"all weights are finite; {abridged(value['sha256'])}, {same}"
        else:
            yield key, f"{value:,}" if isinstance(value, int) else str(value)


def source_rows(source: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The lines about where a model comes from, with a checksum beside what it is of."""
    rest = dict(source)
    for key, title, checksum in SOURCES:
        if key in rest:
            of = rest.pop(checksum, None) if checksum else None
            yield title, f"{abridged(rest.pop(key))}{f', {abridged(of)}' if of else ''}"
    for key, value in rest.items():
        yield key.replace("_", " "), abridged(value)


def require_model(name_or_dir: str) -> None:
    """Raises an error unless this is the name of a model or a folder that may hold one."""
    from videoprism_mlx.files.places import user_path
    from videoprism_mlx.models import canonical_name, known_models
    from videoprism_mlx.video.source import existing
    from videoprism_mlx.weights.adapters import ADAPTER_CONFIG_FILE
    from videoprism_mlx.weights.directory import CONFIG_FILE
    from videoprism_mlx.weights.hub import split_revision

    if canonical_name(split_revision(name_or_dir)[0]) is not None:
        return
    path = user_path(name_or_dir)
    if not path.exists():
        if find_on_hub(name_or_dir) is not None:
            return
        raise InputError(
            f"no model is called {name_or_dir!r}, and there is no such file or folder"
            f"{known_models(name_or_dir)}"
        )
    existing(path)
    if (path / ADAPTER_CONFIG_FILE).is_file():
        raise InputError(
            f"{path} holds adapters and not a model; `videoprism-mlx fuse --adapters {path} "
            "-o DIRECTORY` writes the model with them"
        )
    if not (path / CONFIG_FILE).exists():
        raise InputError(
            f"{path} is not a model directory: it has no {CONFIG_FILE}; expected a model's name, "
            "a model directory or a video file"
        )


def find_on_hub(name_or_dir: str) -> Path | None:
    """Where a model of the Hub is on this machine; None if it is not there, or not of the Hub."""
    from videoprism_mlx.weights import hub
    from videoprism_mlx.weights.loading import repository_of

    repository = repository_of(name_or_dir)
    if repository is None:
        return None
    found = hub.cached_model(repository, hub.split_revision(name_or_dir)[1])
    if found is None:
        raise InputError(
            f"{name_or_dir} is not on this machine, neither as a file or folder nor as a model of "
            "the Hub that was downloaded; `info` downloads nothing"
        )
    return found


def run_list(options: argparse.Namespace) -> int:
    """Prints the models, and which of them are on this machine."""
    import textwrap

    from videoprism_mlx.errors import printable
    from videoprism_mlx.files.places import cache_directory
    from videoprism_mlx.weights.catalogue import list_models

    models = list_models()
    if options.json:
        rows = [
            {key: str(each) if isinstance(each, Path) else each for key, each in row.items()}
            for row in (model._asdict() for model in models)
        ]
        shared.print_json({"cache": str(cache_directory()), "models": rows})
        return 0
    with_weights = [model for model in models if model.weights is not None]
    width = max(len(printable(model.name)) for model in with_weights)
    print(f"{'model':{width}}  {'parameters':>11}  on this machine")
    for model in with_weights:
        print(f"{printable(model.name):{width}}  {model.parameters:11,}  {place(model)}")
    print(f"\ncache: {printable(cache_directory())}")
    others = ", ".join(model.name for model in models if model.weights is None)
    print(textwrap.fill(f"Configurations without published weights: {others}.", 79))
    return 0


def place(model: "KnownModel") -> str:
    """Whether a model is on this machine, and how large it is there."""
    if model.directory is not None:
        where = "in the package" if model.weights == "shipped" else "in the cache"
        return f"{megabytes(model.bytes)} {where}"
    if model.checkpoint is not None:
        return f"{megabytes(model.checkpoint_bytes)}, not converted yet"
    return "no"


def megabytes(size: int) -> str:
    """A number of bytes as it is printed."""
    return f"{size / 1e6:,.0f} MB" if size >= 1e7 else f"{size / 1e6:.1f} MB"


def verify(name_or_dir: str) -> dict[str, Any]:
    """What was found when all weights of a model were read."""
    from videoprism_mlx.convert import transformers
    from videoprism_mlx.files.places import user_path
    from videoprism_mlx.models import canonical_name
    from videoprism_mlx.weights import hub
    from videoprism_mlx.weights.directory import verify_weights

    directory = find(name_or_dir)[1]
    if transformers.is_transformers(user_path(name_or_dir)):
        directory = transformers.kept(user_path(name_or_dir))
    if directory is None:
        name, revision = hub.split_revision(name_or_dir)
        directory = hub.converted_directory(canonical_name(name) or name, revision)
    if not directory.is_dir():
        raise InputError(f"{name_or_dir} is not on this machine yet, so --verify has nothing to do")
    return verify_weights(directory)


def run_video(path: Path, options: argparse.Namespace) -> int:
    """Prints what a video file holds. 1 if it is damaged."""
    from videoprism_mlx.errors import printable
    from videoprism_mlx.video.ffmpeg.decoding import Decoding
    from videoprism_mlx.video.ffmpeg.describe import describe_video

    described = describe_video(path, Decoding(options.stream))
    if options.json:
        shared.print_json(described)
        return 1 if described["damage"] else 0
    for name, row in video_rows(described):
        print(f"{name:12}{printable(row)}")
    return 1 if described["damage"] else 0


def video_rows(described: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The lines about a video file: a name and what there is to say."""
    width, height = described["size"]
    pixels = f", pixels {described['aspect']:g} times as wide as high"
    yield "video", described["video"]
    yield "container", described["container"]
    yield "codec", described["codec"]
    yield "size", f"{width} x {height}{pixels if described['aspect'] != 1 else ''}"
    yield "frames", f"{described['frames']:,}, {described['fps']:g} a second"
    yield "seconds", f"{described['seconds']:,g}"
    yield "pixels", described["pixels"]
    for name, tag in described["colours"].items():
        yield name, tag or "not tagged"
    for one in described["streams"]:
        size = " {} x {}".format(*one["size"]) if "size" in one else ""
        marks = [*one["marks"], *["is read"] * (one["stream"] == described["stream"])]
        row = f"{one['type']}, {one['codec'] or 'no decoder'}{size}"
        yield f"stream {one['stream']}", ", ".join([row, *marks])
    yield "hardware", described["hardware"] or "no decoder here: decoded in software"
    yield "damage", described["damage"] or "none in its structure (frames are not checked)"


def describe(name_or_dir: str) -> dict[str, Any]:
    """The facts that `info` prints about a model."""
    import math

    from videoprism_mlx.features.processor import processor_for
    from videoprism_mlx.files.places import user_path
    from videoprism_mlx.models import build, canonical_name
    from videoprism_mlx.weights.hub import split_revision
    from videoprism_mlx.weights.outline import parameter_shapes
    from videoprism_mlx.weights.quantize.settings import in_words, stored_bytes

    config, directory, source, packings = find(name_or_dir)
    model = build(config)
    shapes = parameter_shapes(model)
    parameters = sum(map(math.prod, shapes.values()))
    name = canonical_name(split_revision(name_or_dir)[0]) or str(user_path(name_or_dir))
    described = {"name": name, "model": config["model"], "parameters": parameters}
    if config["model"] != "TextEncoder":
        processor = processor_for(model, directory)
        described |= {
            "frames": processor.num_frames,
            "size": f"{processor.size} x {processor.size}",
            "resize": f"{processor.resize}, {processor.resample}",
        }
    described["source"] = source
    sizes = {"float32": 4, "bfloat16": 2, "float16": 2}
    if packings is not None:
        described["quantization"] = in_words(packings)
    described["weights_bytes"] = {
        dtype: stored_bytes(shapes, packings, size) for dtype, size in sizes.items()
    }
    return described


def find(name_or_dir: str) -> tuple[dict[str, Any], Path | None, Any, Any]:
    """A model's configuration, its directory if it is on this machine, and where it is from.

    The last is how its layers are quantized; None if they are not.
    """
    from videoprism_mlx.convert import transformers
    from videoprism_mlx.files.places import user_path
    from videoprism_mlx.models import RELEASES, SHIPPED, canonical_name, get_config
    from videoprism_mlx.weights import hub
    from videoprism_mlx.weights.directory import check_shapes, read_checked_config

    named, revision = hub.split_revision(name_or_dir)
    name, directory = canonical_name(named), user_path(name_or_dir)
    if name is None and not directory.is_dir():
        directory = find_on_hub(name_or_dir) or directory
    if name is None and directory.is_dir():
        if transformers.is_transformers(directory):
            outline = transformers.outlined(directory)
            return read_checked_config(outline)[0], outline, "Transformers", None
        config, described = read_checked_config(directory)
        packings = check_shapes(directory, config, described)
        return config, directory, described.get("source", "not recorded"), packings
    config = get_config(named)
    if name in SHIPPED:
        return config, SHIPPED[name], "comes with the package", None
    if name in RELEASES:
        kept = hub.converted_directory(name, revision)
        known = f"kept in {kept}" if kept.is_dir() else "not fetched yet"
        return config, None, f"https://huggingface.co/{RELEASES[name].repository}, {known}", None
    return config, None, "no published weights", None
