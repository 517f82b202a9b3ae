"""Text to token ids, with SentencePiece. Text is first canonicalized as in VideoPrism's training.

Shapes: B batch, L text positions.
"""

import difflib
import logging
import string
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from videoprism_mlx.errors import (
    InputError,
    InputTypeError,
    NotFoundError,
    counted,
    excerpt,
    suggestion,
)
from videoprism_mlx.files import download, places
from videoprism_mlx.files.atomic import new_file
from videoprism_mlx.files.reading import read_bytes, read_text

TEXT_MAX_LENGTH = 64

# The size of the official models' vocabulary.
C4_EN_VOCABULARY_SIZE = 32_000

# The tokenizer's file in a model directory.
TOKENIZER_FILE = "sentencepiece.model"

# The words that a small model was trained on, in its directory.
WORDS_FILE = "words.txt"

# The largest number of unknown words that a warning names.
MOST_NAMED = 5

TOKENIZER_URLS = {
    "c4_en": "https://storage.googleapis.com/t5-data/vocabs/cc_en.32000/sentencepiece.model",
}

logger = logging.getLogger(__name__)

_PUNCTUATION_TO_SPACE = str.maketrans(string.punctuation, " " * len(string.punctuation))


class SentencePieceTokenizer:
    """A SentencePiece model, read from a .model file or from the bytes of one."""

    def __init__(self, model: str | Path | bytes):
        from sentencepiece import SentencePieceProcessor

        serialized = model if isinstance(model, bytes) else read_bytes(model)
        self._model = SentencePieceProcessor()
        try:
            self._model.LoadFromSerializedProto(serialized)
        except RuntimeError:
            name = "the given data" if isinstance(model, bytes) else model
            raise InputError(
                f"{name} is not a SentencePiece model ({counted(len(serialized), 'byte')}); "
                "expected the .model file that SentencePiece's trainer writes"
            ) from None

    @overload  # A str is also a sequence of str. It counts as one text.
    def to_int(  # type: ignore[overload-overlap]
        self, text: str, *, bos: bool = False, eos: bool = False
    ) -> list[int]: ...

    @overload
    def to_int(
        self, text: Sequence[str], *, bos: bool = False, eos: bool = False
    ) -> list[list[int]]: ...

    def to_int(
        self, text: str | Sequence[str], *, bos: bool = False, eos: bool = False
    ) -> list[int] | list[list[int]]:
        """The ids of one text, or a list of ids for each of several texts.

        `bos` and `eos` add begin and end tokens.
        """
        if not isinstance(text, str):
            return [self.to_int(one, bos=bos, eos=eos) for one in text]
        if bos and self.bos_token < 0:
            raise InputError(
                "bos (add_bos) asks for a begin token, but this tokenizer has none; leave it out"
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{text!r} is not valid Unicode text ({error.reason})") from None
        ids: list[int] = self._model.EncodeAsIds(text)
        begin = [self.bos_token] if bos else []
        end = [self.eos_token] if eos else []
        return begin + ids + end

    @property
    def pad_token(self) -> int:
        """The id of padding, -1 if the model has none."""
        return int(self._model.pad_id())

    @property
    def eos_token(self) -> int:
        """The id of the end token, -1 if the model has none."""
        return int(self._model.eos_id())

    @property
    def bos_token(self) -> int:
        """The id of the begin token, -1 if the model has none."""
        return int(self._model.bos_id())

    @property
    def unk_token(self) -> int:
        """The id of unknown pieces."""
        return int(self._model.unk_id())

    @property
    def vocab_size(self) -> int:
        """The number of pieces."""
        return int(self._model.GetPieceSize())


class KnownWords:
    """The words that a small model was trained on. It warns of others, once of each.

    `path` is the file that lists them, if there is one.
    """

    def __init__(self, words: Iterable[str], path: Path | None = None):
        self.words = frozenset(words)
        self.path = path
        self._said: set[str] = set()

    @classmethod
    def in_directory(cls, directory: Path) -> "KnownWords | None":
        """Those that a model directory lists, one on each line; None if it lists none."""
        path = directory / WORDS_FILE
        if not path.is_file():
            return None
        return cls(read_text(path).split(), path)

    def unknown(self, texts: Iterable[str]) -> list[str]:
        """The words of the texts that are new to the model."""
        words = (word for text in texts for word in canonicalize_text(text)[:-1].split())
        return [word for word in dict.fromkeys(words) if word not in self.words]

    def check(self, texts: Iterable[str]) -> None:
        """Logs a warning that names the words of the texts that are new to the model."""
        new = [word for word in self.unknown(texts) if word not in self._said]
        if not new:
            return
        known = f"the {len(self.words)} words that this model knows"
        where = "" if self._said or self.path is None else f"; {self.path} lists them"
        self._said.update(new)
        named = ", ".join(map(self._with_nearest, new[:MOST_NAMED]))
        more = f" and {len(new) - MOST_NAMED} more" if len(new) > MOST_NAMED else ""
        are_not = "is not" if len(new) == 1 else "are not"
        logger.warning("%s%s %s among %s%s", named, more, are_not, known, where)

    def _with_nearest(self, word: str) -> str:
        """The word, and the closest that is known, if one is close."""
        near = difflib.get_close_matches(word, sorted(self.words), n=1, cutoff=0.7)
        return f"{excerpt(word, 40)!r}" + (f" (nearest: {near[0]!r})" if near else "")


def load_text_tokenizer(name: str | Path) -> SentencePieceTokenizer:
    """A tokenizer by name (`c4_en`), from a `.model` file, or from a model directory."""
    if name in TOKENIZER_URLS:
        return SentencePieceTokenizer(tokenizer_path(str(name)))
    path = Path(name)
    if path.is_dir():
        path = path / TOKENIZER_FILE
        if not path.is_file():
            raise NotFoundError(
                f"{name} has no {TOKENIZER_FILE}; for the official models use "
                "load_text_tokenizer('c4_en')"
            )
    if not path.is_file():
        raise NotFoundError(
            f"no tokenizer is called {str(name)!r}, and there is no such file"
            f"{suggestion(str(name), TOKENIZER_URLS)}. "
            f"Expected one of {', '.join(TOKENIZER_URLS)}, the path of a SentencePiece .model "
            f"file, or a model directory with a {TOKENIZER_FILE}"
        )
    return SentencePieceTokenizer(path)


def tokenizer_path(name: str) -> Path:
    """The file of a named tokenizer. It is downloaded once, checked, and kept in the cache."""
    path = places.cache_directory() / "tokenizers" / f"{name}.model"
    if path.exists():
        check_c4_en(read_bytes(path), f"the cached {path}", "remove it to download it again")
    else:
        serialized = download.download_bytes(TOKENIZER_URLS[name], path, download.NO_NETWORK_NEEDED)
        check_c4_en(serialized, "the download", "it was not saved; try again")
        try:
            with new_file(path) as partial:
                partial.write_bytes(serialized)
        except FileExistsError:  # Another process has written the same file.
            pass
    return path


def check_c4_en(serialized: bytes, what: str, advice: str) -> None:
    """Raises InputError unless the number of pieces and the special ids are the official ones.

    The error begins with `what` and ends with `advice`.
    """
    expected = str((C4_EN_VOCABULARY_SIZE, 0, 1, 2, -1))
    try:
        tokenizer = SentencePieceTokenizer(serialized)
    except InputError:
        got = f"unreadable ({counted(len(serialized), 'byte')} that are not a SentencePiece model)"
    else:
        special = (tokenizer.pad_token, tokenizer.eos_token, tokenizer.unk_token)
        got = str((tokenizer.vocab_size, *special, tokenizer.bos_token))
    if got != expected:
        raise InputError(
            f"{what} is not the c4_en tokenizer: (pieces, pad, end, unknown, begin) is "
            f"{got}, expected {expected}; {advice}"
        )


def canonicalize_text(text: str) -> str:
    """The text in lower case, with spaces for ASCII punctuation and a full stop at the end.

    Several spaces in a row become one.
    """
    words = text.translate(_PUNCTUATION_TO_SPACE).lower().split()
    return " ".join(words) + "."


def tokenize_texts(
    tokenizer: SentencePieceTokenizer,
    texts: Iterable[str],
    max_length: int = TEXT_MAX_LENGTH,
    add_bos: bool | None = None,
    canonicalize: bool = True,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Texts to ids (B, L) and paddings (B, L), 1.0 where padded, with L = `max_length`.

    Longer texts are cut. `add_bos` puts a begin token first, by default if the tokenizer has one.
    """
    if not isinstance(texts, Iterable) or isinstance(texts, str):
        raise InputTypeError(f"texts is {texts!r}; expected a list of strings")
    texts = list(texts)
    if not all(isinstance(text, str) for text in texts):
        raise InputTypeError(f"texts is {texts!r}; expected a list of strings")
    if not isinstance(max_length, int) or max_length < 1:
        raise InputError(f"max_length is {max_length!r}; expected a whole number above zero")
    if canonicalize:
        texts = [canonicalize_text(text) for text in texts]
    if add_bos is None:
        add_bos = tokenizer.bos_token >= 0

    ids = np.zeros((len(texts), max_length), np.int32)
    paddings = np.ones((len(texts), max_length), np.float32)
    for row, tokens in enumerate(tokenizer.to_int(texts, bos=add_bos)):
        tokens = tokens[:max_length]
        ids[row, : len(tokens)] = tokens
        paddings[row, : len(tokens)] = 0
    return ids, paddings
