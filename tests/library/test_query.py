"""What a query says."""

from pathlib import Path

import numpy as np
import pytest

from videoprism_mlx.errors import InputError, InputTypeError, NotFoundError
from videoprism_mlx.library.search.query import Part, combined, parse


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that queries name."""
    for name in ("wave.mp4", "photo.jpg", "a - b.mp4", "odd@1-2.mp4", "plain"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)


def clip(name: str, weight: float = 1.0, *span: float | None) -> Part:
    return Part(weight, None, Path(name), *span)


@pytest.mark.parametrize(
    ("query", "parts"),
    [
        ("a dog runs", [Part(1, "a dog runs")]),
        (["a", "dog", "runs"], [Part(1, "a dog runs")]),
        ("2:surfing + ./wave.mp4 - beach",
         [Part(2, "surfing"), clip("wave.mp4"), Part(-1, "beach")]),
        (["2:surfing", "+", "./wave.mp4", "-", "the", "beach"],
         [Part(2, "surfing"), clip("wave.mp4"), Part(-1, "the beach")]),
        ("wave.mp4@12.5-16", [clip("wave.mp4", 1, 12.5, 16)]),
        ("0.5:./wave.mp4@1:05-", [clip("wave.mp4", 0.5, 65, None)]),
        ("photo.jpg", [clip("photo.jpg")]),
        ("./plain@0-1", [clip("plain", 1, 0, 1)]),
        ("a - b.mp4", [clip("a - b.mp4")]),
        (["a - b.mp4", "+", "x - y"], [clip("a - b.mp4"), Part(1, "x - y")]),
        ("odd@1-2.mp4", [clip("odd@1-2.mp4")]),
        ("- beach", [Part(-1, "beach")]),
        ("a black-and-white cat and/or c++", [Part(1, "a black-and-white cat and/or c++")]),
        ("plain", [Part(1, "plain")]),
    ],
)  # fmt: skip
def test_the_parts_of_a_query(query: str | list[str], parts: list[Part]) -> None:
    assert parse(query) == parts


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("", "the query is empty"),
        ([" ", ""], "the query is empty"),
        ("a +", r"a \+ or - of the query 'a \+' has no part after it"),
        (["a", "-", "+", "b"], "has no part after it"),
        ("0:surfing", "'0:surfing' is a part of the query; expected a weight above 0"),
        ("a + 2:", "'2:' is a part of the query; expected a weight above 0"),
        ("wave.mp4@5", "'wave.mp4@5' .* '5' is no span; expected one such as @12.5-16"),
        ("wave.mp4@5-2", "'wave.mp4@5-2' .* ends before it begins"),
        ("wave.mp4@1:2:3:4-9", "'1:2:3:4' is no time"),
    ],
)
def test_the_wrong_part_is_named(query: str | list[str], error: str) -> None:
    with pytest.raises(InputError, match=error):
        parse(query)


@pytest.mark.parametrize("query", ["gone.mp4", "a + ./gone", "2:gone.mp4@1-2"])
def test_a_missing_file_is_named(query: str) -> None:
    with pytest.raises(NotFoundError, match=r"there is no file gone.*a part that begins with"):
        parse(query)


def test_a_text_that_is_too_long_for_a_name() -> None:
    words = "words " * 60
    assert parse(f"./wave.mp4 + {words}") == [clip("wave.mp4"), Part(1, text=words.strip())]
    with pytest.raises(NotFoundError, match="there is no file"):
        parse("x" * 5000 + ".mp4")


def test_a_query_that_is_no_text() -> None:
    with pytest.raises(InputTypeError, match="the query is 5; expected a string"):
        parse(5)  # type: ignore[arg-type]


def test_parts_are_added_and_subtracted() -> None:
    vectors = dict(zip("abc", np.eye(3, dtype=np.float32), strict=True))
    found = combined(parse("2:a + b - 0.5:c"), lambda part: vectors[str(part.text)])
    np.testing.assert_allclose(found, np.array([2, 1, -0.5]) / np.sqrt(5.25), rtol=1e-6)
    with pytest.raises(InputError, match="cancel one another"):
        combined(parse("a - a"), lambda part: vectors[str(part.text)])
