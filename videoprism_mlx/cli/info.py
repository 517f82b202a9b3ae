"""`videoprism-mlx info`: what a model is and needs."""

import argparse
from pathlib import Path
from typing import Any

from videoprism_mlx.cli import shared


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "info",
        help="a model's parameters, memory, frames and source",
        description="Describes a model by name, which downloads nothing, or in a directory.",
    )
    parser.add_argument("model", metavar="NAME|DIR", help="a model's name, or a model directory")
    shared.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    described = describe(options.model)
    if options.json:
        shared.print_json(described)
        return 0
    memory = described.pop("weights_bytes")
    for key, value in described.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {one}" for name, one in value.items())
        shown = f"{value:,}" if isinstance(value, int) else value
        print(f"{key.replace('_', ' '):16}{shown}")
    print(f"{'weights':16}" + ", ".join(f"{size / 1e6:,.0f} MB {t}" for t, size in memory.items()))
    return 0


def describe(name_or_dir: str) -> dict[str, Any]:
    """What there is to say about a model."""
    from mlx.utils import tree_flatten

    from videoprism_mlx.features.processor import processor_for
    from videoprism_mlx.models import (
        RELEASES,
        SHIPPED,
        build,
        canonical_name,
        checked_config,
        get_config,
    )
    from videoprism_mlx.weights import hub
    from videoprism_mlx.weights.directory import WEIGHTS_FILE, read_config, stored_shapes

    name, directory = canonical_name(name_or_dir), Path(name_or_dir).expanduser()
    source: Any
    if name is None and directory.is_dir():
        described = read_config(directory)
        config, source = checked_config(described), described.get("source", "not recorded")
        stored_shapes(directory / WEIGHTS_FILE)
    else:
        config, directory = get_config(name_or_dir), None
        source = "no published weights"
        if name in SHIPPED:
            directory, source = SHIPPED[name], "comes with the package"
        elif name in RELEASES:
            source = f"https://huggingface.co/{RELEASES[name].repository}"
            kept = hub.converted_directory(name, None)
            source += f", kept in {kept}" if kept.is_dir() else ", not fetched yet"
    model = build(config)
    parameters = sum(array.size for _, array in tree_flatten(model.parameters()))
    described = {"name": name or str(directory), "model": config["model"], "parameters": parameters}
    if config["model"] != "TextEncoder":
        processor = processor_for(model, directory)
        described |= {
            "frames": processor.num_frames,
            "size": f"{processor.size} x {processor.size}",
            "resize": f"{processor.resize}, {processor.resample}",
        }
    described["source"] = source
    sizes = {"float32": 4, "bfloat16": 2, "float16": 2}
    described["weights_bytes"] = {dtype: size * parameters for dtype, size in sizes.items()}
    return described
