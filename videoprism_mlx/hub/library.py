"""A library's record, as others can use it: with it, they make a library that compares."""

import json
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from videoprism_mlx.errors import LibraryError, counted, excerpt
from videoprism_mlx.files.places import user_path
from videoprism_mlx.files.record import RECORD_FILE, as_json
from videoprism_mlx.hub.card import front_matter, render, with_mark
from videoprism_mlx.hub.contents import MOMENTS_FILE, is_local, without_paths
from videoprism_mlx.library.model import SIZING, recorded_model
from videoprism_mlx.library.table import VIDEOS, Tables
from videoprism_mlx.library.upkeep.export import write_parquet
from videoprism_mlx.library.upkeep.info import describe

LIBRARY = "library"

# Of a library's record, what `index` is told by an option of the same name.
OPTIONS = ("window", "stride", "fps", *SIZING)
FLAGS = ("partial", "tone_map")


def is_library(directory: str | Path) -> bool:
    """Whether this is the folder of a library."""
    return (user_path(directory) / f"{VIDEOS}.lance").is_dir()


@contextmanager
def library_files(
    directory: str | Path, repository: str, base: str | None, embeddings: bool, licence: str | None
) -> Iterator[tuple[dict[str, Path | bytes], str]]:
    """The files of a library's record by name, and its card. They are there during the block.

    `base` is the Hub id of its model, if the record names a directory of this machine.
    """
    tables = Tables.open(user_path(directory))
    tables.refresh()
    described = describe(tables)
    source = public_source(str(directory), described["source"], base)
    record = {
        **{name: described[name] for name in ("format", "dimension", "preprocessing")},
        "model": {**described["model"], "name": source["model"]},
        "source": source,
        **{name: described[name] for name in ("videos", "moments", "seconds")},
    }
    require_same_model(tables, source)
    with tempfile.TemporaryDirectory() as folder:
        files: dict[str, Path | bytes] = {RECORD_FILE: (as_json(record) + "\n").encode()}
        if embeddings:
            files[MOMENTS_FILE] = path = Path(folder) / MOMENTS_FILE
            write_parquet(tables, path, without_paths(record), has_paths=False)
        yield files, library_card(record, repository, embeddings, licence)


def public_source(where: str, source: Mapping[str, Any], base: str | None) -> dict[str, Any]:
    """Where the model of a library comes from, as others can name it."""
    model, adapters = base or source.get("model"), source.get("adapters")
    for name in (model, adapters):
        if name is not None and is_local(str(name)):
            raise LibraryError(
                f"the library {where} was made with {excerpt(name, 250)}, a directory that others "
                "do not have: upload it as well, and name it with --base you/model (base=...)"
            )
    if model is None:
        raise LibraryError(
            f"the library {where} was made with a model in memory, which others do not have; name "
            "the model on the Hub with --base you/model (base=...)"
        )
    named = {"model": str(model), "dtype": source.get("dtype"), "adapters": adapters}
    return named | {"files": source.get("files")}


def require_same_model(tables: Tables, source: Mapping[str, Any]) -> None:
    """Raises LibraryError unless the named model is that of the library, by its checksum."""
    if tables.record["source"].get("model") == source["model"]:
        return
    recorded_model(
        tables.where, tables.record, source["model"], source["dtype"], source["adapters"]
    )


def library_card(
    record: Mapping[str, Any], repository: str, embeddings: bool, licence: str | None
) -> str:
    """The card of a library's record."""
    source, reading = record["source"], record["preprocessing"]
    names = [("model", f"`{source['model']}`"), ("computed in", record["model"].get("dtype"))]
    if source["adapters"]:
        names.append(("adapters", f"`{source['adapters']}`"))
    names += [(name, json.dumps(reading[name]).strip('"')) for name in OPTIONS if name in reading]
    counts = f"{record['moments']:,}, of {counted(record['videos'], 'video')}"
    load = f'"{source["model"]}"'
    load += f', adapters="{source["adapters"]}"' if source["adapters"] else ""
    body = render(
        "library.md",
        repository=repository,
        moments=embeddings,
        command=index_command(record),
        facts=[*names, ("moments", counts), ("width of an embedding", record["dimension"])],
        load=load,
        licence="Whoever uploaded it has not named a licence." if licence is None else licence,
    )
    data = {
        "license": licence,
        "tags": ["mlx", "videoprism", "video", "embeddings"],
        "configs": None
        if not embeddings
        else [{"config_name": "moments", "data_files": MOMENTS_FILE}],
    }
    return with_mark(front_matter(data) + body)


def index_command(record: Mapping[str, Any]) -> str:
    """The command that makes a library with the settings of a record."""
    source, reading = record["source"], record["preprocessing"]
    settings = {"model": source["model"], "adapters": source["adapters"], "dtype": source["dtype"]}
    settings |= {name: reading.get(name) for name in OPTIONS}
    words = ["videoprism-mlx", "index", "FOLDER", "--library", "new-library"]
    for name, value in settings.items():
        if value is not None:
            words += [f"--{name}", f"{value:g}" if isinstance(value, float) else str(value)]
    words += [f"--{name.replace('_', '-')}" for name in FLAGS if reading.get(name)]
    return wrapped([shlex.quote(word) for word in words])


def wrapped(words: list[str]) -> str:
    """A command on several lines, an option with its value on one."""
    lines, line = [], " ".join(words[:3])
    for word in words[3:]:
        if word.startswith("--") and len(line) > 60:
            lines.append(f"{line} \\")
            line = " "
        line = f"{line} {word}"
    return "\n".join([*lines, line])
