"""Canonical text, ids and where tokenizers come from."""

import io
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

import videoprism_mlx as vp
from videoprism_mlx import tokenizers
from videoprism_mlx.tokenizers import TOKENIZER_FILE

TEXTS = ["A red cat, running!", "the BLUE ball falls   down", "", "?!", "grey kite " * 40]


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("Hello,World..", "hello world."),
        ("Hello, World!", "hello world."),
        ("  Hello   WORLD", "hello world."),
        ("", "."),
        ("?!", "."),
        ("don't stop", "don t stop."),
        ("Ünïcode «quotes» stay", "ünïcode «quotes» stay."),
        ("tab\tand\nline", "tab and line."),
    ],
)
def test_canonical_text(text: str, canonical: str) -> None:
    assert vp.canonicalize_text(text) == canonical


@pytest.mark.parametrize("max_length", [4, 64])
@pytest.mark.parametrize("canonicalize", [True, False])
def test_ids_are_those_of_sentencepiece(
    spm_model: Path, max_length: int, canonicalize: bool
) -> None:
    tokenizer = vp.load_text_tokenizer(spm_model)
    ids, paddings = vp.tokenize_texts(
        tokenizer, TEXTS, max_length=max_length, canonicalize=canonicalize
    )
    assert ids.dtype == np.int32 and paddings.dtype == np.float32
    processor = sentencepiece.SentencePieceProcessor(model_file=str(spm_model))
    for row, text in enumerate(TEXTS):
        expected = processor.encode(vp.canonicalize_text(text) if canonicalize else text)
        expected = expected[:max_length]
        count = len(expected)
        assert ids[row].tolist() == expected + [0] * (max_length - count)
        assert paddings[row].tolist() == [0.0] * count + [1.0] * (max_length - count)


def test_special_ids(spm_model: Path, spm_model_with_bos: Path) -> None:
    plain = vp.load_text_tokenizer(spm_model)
    assert (plain.pad_token, plain.eos_token, plain.unk_token, plain.bos_token) == (0, 1, 2, -1)
    assert plain.vocab_size == 40
    assert vp.load_text_tokenizer(spm_model_with_bos).bos_token == 3


def test_a_begin_token_where_there_is_one_unless_told_otherwise(
    spm_model: Path, spm_model_with_bos: Path
) -> None:
    tokenizer = vp.load_text_tokenizer(spm_model_with_bos)
    with_bos, _ = vp.tokenize_texts(tokenizer, ["a red cat"])
    without, _ = vp.tokenize_texts(tokenizer, ["a red cat"], add_bos=False)
    assert with_bos[0, 0] == 3
    np.testing.assert_array_equal(with_bos[0, 1:], without[0, :-1])
    with pytest.raises(ValueError, match="has none"):
        vp.tokenize_texts(vp.load_text_tokenizer(spm_model), ["a red cat"], add_bos=True)


def test_begin_and_end_around_one_text(spm_model_with_bos: Path) -> None:
    tokenizer = vp.load_text_tokenizer(spm_model_with_bos)
    assert tokenizer.to_int("a", bos=True, eos=True) == [3, *tokenizer.to_int("a"), 1]


def test_texts_may_be_any_iterable(spm_model: Path) -> None:
    tokenizer = vp.load_text_tokenizer(spm_model)
    expected = vp.tokenize_texts(tokenizer, TEXTS)
    got = vp.tokenize_texts(tokenizer, (text for text in TEXTS))
    np.testing.assert_equal(got, expected)


@pytest.mark.parametrize("length", [0, -1, "4"])
def test_a_length_must_be_one(spm_model: Path, length: object) -> None:
    with pytest.raises(ValueError, match="expected a whole number above zero"):
        vp.tokenize_texts(vp.load_text_tokenizer(spm_model), TEXTS, max_length=length)


def test_no_text_is_no_row(spm_model: Path) -> None:
    ids, paddings = vp.tokenize_texts(vp.load_text_tokenizer(spm_model), [])
    assert ids.shape == paddings.shape == (0, 64)


@pytest.mark.parametrize("texts", ["a red cat", [b"bytes"], [None]])
def test_texts_must_be_a_list_of_strings(spm_model: Path, texts: object) -> None:
    with pytest.raises(TypeError, match="expected a list of strings"):
        vp.tokenize_texts(vp.load_text_tokenizer(spm_model), texts)


def test_from_a_model_directory(spm_model: Path, tmp_path: Path) -> None:
    (tmp_path / TOKENIZER_FILE).write_bytes(spm_model.read_bytes())
    assert vp.load_text_tokenizer(tmp_path).vocab_size == 40


def test_an_unknown_name_and_a_file_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="did you mean 'c4_en'"):
        vp.load_text_tokenizer("c4en")
    (tmp_path / "x.model").write_bytes(b"not a model")
    with pytest.raises(FileNotFoundError, match=r"has no sentencepiece.model"):
        vp.load_text_tokenizer(tmp_path)
    with pytest.raises(ValueError, match=r"x.model is not a SentencePiece model"):
        vp.load_text_tokenizer(tmp_path / "x.model")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, spm_model: Path, tmp_path: Path) -> list[str]:
    """The small model in c4_en's place; returns the addresses that are asked for."""
    asked: list[str] = []

    class Answer(io.BytesIO):
        headers = {"Content-Length": str(spm_model.stat().st_size)}  # noqa: RUF012

    def urlopen(url: str, timeout: float) -> Answer:
        asked.append(url)
        return Answer(spm_model.read_bytes())

    monkeypatch.setenv("VIDEOPRISM_MLX_CACHE", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked


def test_c4_en_is_fetched_once_and_kept(
    served: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tokenizers, "C4_EN_VOCABULARY_SIZE", 40)
    assert vp.load_text_tokenizer("c4_en").vocab_size == 40
    assert vp.load_text_tokenizer("c4_en").vocab_size == 40
    assert served == [
        "https://storage.googleapis.com/t5-data/vocabs/cc_en.32000/sentencepiece.model"
    ]
    assert [path.name for path in (tmp_path / "tokenizers").iterdir()] == ["c4_en.model"]


def test_what_is_not_c4_en_is_not_kept(served: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is \(40, 0, 1, 2, -1\), expected \(32000, 0, 1, 2, -1"):
        vp.load_text_tokenizer("c4_en")
    assert not list(tmp_path.rglob("*.model"))


def test_a_spoilt_copy_of_c4_en_is_not_used(
    served: list[str], spm_model: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "tokenizers" / "c4_en.model"
    kept.parent.mkdir()
    for spoilt in (b"", b"something else", spm_model.read_bytes()):
        kept.write_bytes(spoilt)
        with pytest.raises(ValueError, match=r"the cached .* is not .*remove it to download it"):
            vp.load_text_tokenizer("c4_en")
    assert served == [] and kept.exists()


def test_offline(served: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE is set; without a network, bring"):
        vp.load_text_tokenizer("c4_en")
    assert served == []


def test_text_that_is_not_unicode(spm_model: Path) -> None:
    tokenizer = vp.load_text_tokenizer(spm_model)
    with pytest.raises(vp.VideoPrismError, match="is not valid Unicode text"):
        vp.tokenize_texts(tokenizer, ["a cat", "a \udc80 dog"])
