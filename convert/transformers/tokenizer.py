"""The tokenizer: SentencePiece's .model file, and Transformers' tokenizer.json.

A .model file is a message in the format of Protocol Buffers. It is read and written here as far as
a unigram tokenizer needs: pieces with their scores, and the table that normalizes characters.
"""

import base64
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from videoprism_mlx.errors import CheckpointError, InputError, excerpt
from videoprism_mlx.files.reading import read_bytes, read_json_object
from videoprism_mlx.tokenizers import TOKENIZER_FILE, SentencePieceTokenizer

TOKENIZER_JSON = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"

# The name of a SentencePiece model in Transformers.
SPIECE_FILE = "spiece.model"

# Numbers of fields, and the kinds of pieces, in sentencepiece_model.proto.
PIECE, TRAINER, NORMALIZER = 1, 2, 3
TEXT, SCORE, KIND = 1, 2, 3
NORMAL, UNKNOWN, CONTROL = 1, 2, 3
MODEL_TYPE, UNIGRAM = 3, 1
SPECIAL_IDS = {"unk": 40, "bos": 41, "eos": 42, "pad": 43}
SPECIAL_TEXTS = {"unk": 45, "bos": 46, "eos": 47, "pad": 48}
CHARACTERS = 2

SPACE = "\u2581"  # SentencePiece's sign for a space.


def varint(number: int) -> bytes:
    """A number as Protocol Buffers write it."""
    number &= 2**64 - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def field(number: int, value: int | float | bytes) -> bytes:
    """A field of a message."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3) + varint(value)


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The number and value of each field: an int, or bytes. Raises ValueError if it is damaged."""
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            if at >= len(message) or shift > 63:
                raise ValueError("it ends too early")
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    while at < len(message):
        key = number()
        if key & 7 == 0:
            yield key >> 3, number()
            continue
        if key & 7 not in (1, 2, 5):
            raise ValueError("it has a field of an unknown kind")
        size = {1: 8, 5: 4}.get(key & 7) or (number() if key & 7 == 2 else 0)
        if at + size > len(message):
            raise ValueError("it ends too early")
        yield key >> 3, message[at : at + size]
        at += size


def tokenizer_files(model: bytes, max_length: int) -> dict[str, str] | None:
    """The texts of Transformers' files for a SentencePiece model. None if it is of another kind.

    VideoPrism's is a unigram model without a begin token. `max_length` is the most tokens that a
    text may have.
    """
    tokenizer = SentencePieceTokenizer(model)  # It says if this is no such model.
    pieces = [[text, score] for text, score, _ in pieces_of(model)]
    kinds = {kind for _, _, kind in pieces_of(model)}
    kind, table = UNIGRAM, b""
    for number, value in fields(model):
        if number == TRAINER:
            kind = dict(fields(value)).get(MODEL_TYPE, UNIGRAM)
        elif number == NORMALIZER:
            table = dict(fields(value)).get(CHARACTERS, b"")
    if kind != UNIGRAM or tokenizer.bos_token >= 0 or not kinds <= {NORMAL, UNKNOWN, CONTROL}:
        return None
    ids = {"pad": tokenizer.pad_token, "eos": tokenizer.eos_token, "unk": tokenizer.unk_token}
    names = {f"{name}_token": str(pieces[i][0]) for name, i in ids.items() if 0 <= i < len(pieces)}
    settings = dict(
        **names,
        backend="tokenizers",
        extra_ids=0,
        model_max_length=max_length,
        tokenizer_class="VideoPrismTokenizer",
    )
    spaces = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": i, "content": pieces[i][0], **flags, "special": True}
        for i in sorted(ids.values())
        if 0 <= i < len(pieces)
    ]
    encoded = base64.b64encode(table).decode()
    described = dict(
        version="1.0",
        truncation=None,
        padding=None,
        added_tokens=added,
        normalizer={"type": "Precompiled", "precompiled_charsmap": encoded} if table else None,
        pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, spaces]},
        post_processor=None,
        decoder=spaces,
        model=dict(type="Unigram", unk_id=ids["unk"], vocab=pieces, byte_fallback=False),
    )
    return {
        TOKENIZER_JSON: json.dumps(described, ensure_ascii=False, indent=1) + "\n",
        TOKENIZER_CONFIG: json.dumps(settings, indent=2) + "\n",
    }


def read_tokenizer(directory: Path, most: int) -> bytes | None:
    """The SentencePiece model of a model of Transformers. None if it has no tokenizer.

    Transformers reads tokenizer.json, so that counts if a .model file beside it is another.
    `most` is the size of the model's vocabulary.
    """
    stored = [directory / name for name in (SPIECE_FILE, TOKENIZER_FILE, "tokenizer.model")]
    path = next((one for one in stored if one.is_file()), None)
    model = None if path is None else read_bytes(path, CheckpointError)
    if (directory / TOKENIZER_JSON).is_file():
        described = directory / TOKENIZER_JSON
        try:
            found = sentencepiece_model(read_json_object(described, CheckpointError), most)
            if model is None or pieces_of(model) != pieces_of(found):
                path, model = described, found
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"{described} is not a unigram tokenizer, which VideoPrism has ({excerpt(error)})"
            ) from None
    if model is None:
        return None
    try:
        size = SentencePieceTokenizer(model).vocab_size
    except InputError:
        raise CheckpointError(f"{path} is damaged: download or copy it again") from None
    if size > most:
        raise CheckpointError(f"{path} has {size} pieces; the model's vocabulary is {most}")
    return model


def pieces_of(model: bytes) -> list[tuple[str, float, int]]:
    """The text, score and kind of each piece of a SentencePiece model."""
    pieces = []
    for number, value in fields(model):
        if number == PIECE:
            parts = dict(fields(value))
            (score,) = struct.unpack("<f", parts.get(SCORE, b"\0\0\0\0"))
            pieces.append((parts.get(TEXT, b"").decode(), score, parts.get(KIND, NORMAL)))
    return pieces


def sentencepiece_model(described: dict[str, Any], most: int) -> bytes:
    """The SentencePiece model of a tokenizer.json, with its first `most` pieces."""
    model = described["model"]
    if model["type"] != "Unigram":
        raise ValueError(f"its type is {model['type']}")
    vocabulary = model["vocab"]
    # Transformers' own tokens, <extra_id_0> and so on, may come after those of the model.
    while len(vocabulary) > most and str(vocabulary[-1][0]).startswith("<extra_id_"):
        vocabulary = vocabulary[:-1]
    special = {one["content"] for one in described.get("added_tokens", ()) if one["special"]}
    pieces = b""
    for i, (text, score) in enumerate(vocabulary):
        kind = UNKNOWN if i == model["unk_id"] else CONTROL if text in special else NORMAL
        piece = field(TEXT, text.encode()) + field(SCORE, float(score)) + field(KIND, kind)
        pieces += field(PIECE, piece)
    texts = [text for text, _ in vocabulary]
    ids = {"unk": model["unk_id"], "bos": -1}
    for name, text in (("pad", "<pad>"), ("eos", "</s>")):
        ids[name] = texts.index(text) if text in texts else -1
    trainer = field(MODEL_TYPE, UNIGRAM) + field(4, len(vocabulary))
    for name, i in ids.items():
        trainer += field(SPECIAL_IDS[name], i)
        if i >= 0:
            trainer += field(SPECIAL_TEXTS[name], texts[i].encode())
    normalizers = described.get("normalizer") or {}
    tables = [
        one.get("precompiled_charsmap") for one in normalizers.get("normalizers", [normalizers])
    ]
    table = next((one for one in tables if one), "")
    normalizer = field(CHARACTERS, base64.b64decode(table)) if table else b""
    return pieces + field(TRAINER, trainer) + field(NORMALIZER, normalizer)
