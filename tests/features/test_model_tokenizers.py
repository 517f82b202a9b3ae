"""Tokenizers by the name of a model, and words that a small model never met."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

import videoprism_mlx as vp
from videoprism_mlx.demo.captions import vocabulary
from videoprism_mlx.demo.queries import QUERIES
from videoprism_mlx.demo.world import sentences
from videoprism_mlx.models import DEMO_MODEL, RELEASES, SHIPPED
from videoprism_mlx.tokenizers import WORDS_FILE, KnownWords, canonicalize_text

CAPTION = "a blue ball"


@pytest.fixture
def own_c4(spm_model: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A small tokenizer stands in for c4_en. The names that are asked for."""
    asked: list[str] = []

    def path(name: str) -> Path:
        asked.append(name)
        return spm_model

    monkeypatch.setattr("videoprism_mlx.tokenizers.tokenizer_path", path)
    return asked


@pytest.mark.parametrize(
    "name",
    [
        "c4_en",
        "videoprism_lvt_public_v1_base",
        "videoprism_lvt_public_v1_large",
        "videoprism_lvt_v1_giant",
        RELEASES["videoprism_lvt_public_v1_base"].repository,
    ],
)
def test_models_of_the_official_vocabulary(name: str, own_c4: list[str]) -> None:
    assert vp.load_text_tokenizer(name).vocab_size == 40
    assert own_c4 == ["c4_en"]


def test_the_tokenizer_beside_a_model(own_c4: list[str], searchable: Path) -> None:
    shipped = SHIPPED[DEMO_MODEL] / "sentencepiece.model"
    by_name, by_file = map(vp.load_text_tokenizer, (DEMO_MODEL, shipped))
    assert by_name.to_int(CAPTION) == by_file.to_int(CAPTION) and by_name.vocab_size == 128
    assert vp.load_text_tokenizer(searchable).vocab_size == 40
    assert own_c4 == []


def test_a_converted_model_without_the_file(own_c4: list[str], tmp_path: Path) -> None:
    name = "videoprism_lvt_v1_base"
    (tmp_path / "config.json").write_text(json.dumps(vp.models.get_config(name)))
    assert vp.load_text_tokenizer(tmp_path).vocab_size == 40


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("videoprism_public_v1_base", "videoprism_public_v1_base takes no text"),
        (
            "videoprism_vc_v1_base",
            "has no tokenizer; expected a video-text model",
        ),
        ("videoprism_lvt_public_v1_bas", "did you mean 'videoprism_lvt_public_v1_base'"),
    ],
)
def test_names_without_a_tokenizer(name: str, message: str, own_c4: list[str]) -> None:
    with pytest.raises(vp.VideoPrismError, match=message):
        vp.load_text_tokenizer(name)
    assert own_c4 == []


# Words.


def test_the_list_of_words_is_that_of_the_captions() -> None:
    """To write it again: "\\n".join(vocabulary()), as examples/train_demo_model.py does."""
    listed = (SHIPPED[DEMO_MODEL] / WORDS_FILE).read_text().split()
    assert listed == vocabulary()
    said = {word for text in sentences(3000, 5) for word in canonicalize_text(text)[:-1].split()}
    assert said == set(listed)
    asked = {word for query in QUERIES for word in canonicalize_text(query.text)[:-1].split()}
    assert asked <= set(listed)


def test_new_words_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    model, processor = vp.load(DEMO_MODEL)
    with caplog.at_level(logging.WARNING):
        vp.embed_texts(model, processor, ["A big, red BALL moves left.", "a video of something"])
    assert caplog.messages == []
    with caplog.at_level(logging.WARNING):
        vp.embed_texts(model, processor, ["a Dog on the beach", "two dogs, a red ball"])
        vp.embed_texts(model, processor, ["a dog that runs"])
        vp.embed_texts(model, processor, ["a dog that runs"])
    first, second = caplog.messages
    file = SHIPPED[DEMO_MODEL] / "words.txt"
    among = f"are not among the {len(vocabulary())} words that this model knows"
    named = "'dog', 'two' (nearest: 'to'), 'dogs' (nearest: 'does')"
    assert first == f"{named} {among}; {file} lists them"
    assert second == f"'runs' {among.replace('are', 'is', 1)}"


@pytest.mark.parametrize("count", [5, 6, 9])
def test_a_text_of_unknown_words_is_one_short_line(
    count: int, caplog: pytest.LogCaptureFixture
) -> None:
    words = KnownWords(["left", "right", "star"])
    words.check(["lefft", " ".join(f"x{number}" for number in range(count - 1)), "z" * 1000])
    [said] = caplog.messages
    assert said.startswith("'lefft' (nearest: 'left'), 'x0', 'x1', 'x2', 'x3' and ")
    assert f"and {count + 1 - 5} more are not among the 3 words" in said
    assert len(said) < 200


def test_models_that_list_no_words_warn_of_none(
    searchable: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, processor = vp.load(searchable)
    assert processor.known_words is None
    with caplog.at_level(logging.WARNING):
        vp.embed_texts(model, processor, ["xylophone"])
    assert caplog.messages == []


def test_training_on_new_words_warns_of_none() -> None:
    from videoprism_mlx.training.session import Options

    model, processor = vp.load(DEMO_MODEL)
    assert processor.known_words is not None
    learning: Any = Options().processor(model, SHIPPED[DEMO_MODEL])
    assert learning.known_words is None
