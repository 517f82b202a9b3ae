"""Writes the embeddings of a list of texts to a file, as `videoprism-mlx embed --text` does."""

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import InputError, InputTypeError, OutputError
from videoprism_mlx.features.embed import prepare
from videoprism_mlx.features.formats import FORMATS, json_line, read_record, write_features
from videoprism_mlx.features.formats.rows import TEXTS, Rows
from videoprism_mlx.features.processor import Processor, check_text
from videoprism_mlx.features.resumable_store import check_format
from videoprism_mlx.features.text import embed_texts, require_tokenizer
from videoprism_mlx.files.atomic import new_file
from videoprism_mlx.files.output import require_writable
from videoprism_mlx.files.record import Record, differences, made_with

FEATURE = "embedding"


def save_text_embeddings(
    texts: Sequence[str],
    output: str | Path | TextIO,
    model: str | Path | tuple[VideoPrismModel, Processor] | None = None,
    *,
    template: str | None = None,
    batch_size: int = 64,
    dtype: str | None = None,
    adapters: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Path | None:
    """Writes the embeddings (Q, D) of texts to one file, and returns its path.

    The file has the format of `embed`, with `texts` instead of `videos`. `output` is called *.npz,
    *.safetensors, *.jsonl or *.parquet; or it is an open text file, for JSON lines. Each text is
    put into `template`, by default the one of the model's processor. `model`, `dtype` and
    `adapters` are as for `embed`. A file that holds the same embeddings is left as it is. One that
    holds others is an error; with `overwrite` it is replaced.
    """
    texts = checked(texts)
    output = Path(output) if isinstance(output, str) else output
    file_format = "jsonl"
    if isinstance(output, Path):
        file_format = check_output(output)
    settings = {"template": template}
    loaded, processor, identity = prepare(model, dtype, adapters, require_tokenizer, settings)
    how = {"template": processor.template, "max_length": processor.max_length}
    named = [{"name": text} for text in texts]
    record = made_with(model=identity, preprocessing=how, features=[FEATURE], texts=named)
    if isinstance(output, Path) and not overwrite and is_there(output, record):
        return output
    rows = embed_texts(loaded, processor, texts, batch_size, progress=progress)
    if not isinstance(output, Path):
        for item, row in zip(named, rows, strict=True):
            output.write(json_line(item, {FEATURE: row}, record))
        return None
    with new_file(output, replace=True) as partial:
        write_features(partial, file_format, {FEATURE: Rows.of(rows)}, record)
    return output


def checked(texts: Sequence[str]) -> list[str]:
    """The texts as a list. Raises an error unless there is at least one, and none is empty."""
    if isinstance(texts, str) or not len(texts):
        raise InputTypeError(f"texts is {texts!r}; expected a list of at least one string")
    for text in texts:
        check_text(text)
        if not text.strip():
            raise InputError("one of the texts is empty; leave it out, or give it words")
    return list(texts)


def check_output(output: Path) -> str:
    """The format of the output. Raises an error unless it is one file that can be written."""
    file_format, is_one_file = check_format(output)
    if not is_one_file:
        listed = ", ".join(f"*.{each}" for each in FORMATS)
        raise InputError(f"texts are written to one file, and {output} is none of {listed}")
    require_writable(output, is_file=True)
    return file_format


def is_there(output: Path, record: Record) -> bool:
    """Whether the output holds this already. Raises OutputError if it holds something else."""
    if not output.exists():
        return False
    found = read_record(output)
    if TEXTS not in found:
        raise OutputError(
            f"{output} holds features of videos, and not embeddings of texts; name another output, "
            "or begin anew with --overwrite (overwrite=True)"
        )
    changed = differences(found, record)
    if not changed and found.get(TEXTS) != record[TEXTS]:
        changed = ["its texts are others"]
    if changed:
        raise OutputError(
            f"{output} was made with other settings: {'; '.join(changed)}. Name another output, or "
            "begin anew with --overwrite (overwrite=True)"
        )
    return True
