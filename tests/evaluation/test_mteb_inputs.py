"""What MTEB gives to a model, in every form that a dataset may have. MTEB itself is not needed."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import videoprism_mlx as vp
from videoprism_mlx.errors import InputError, InputTypeError, MissingLibraryError
from videoprism_mlx.features.processor import Processor
from videoprism_mlx.mteb import Encoder, checked_towers, source_of
from videoprism_mlx.weights.identity import ModelIdentity

pytest_plugins = ["evaluation_fixtures"]

TEXTS = ["a red cat runs", "the grey dog", "a red cat runs", "a blue kite falls"]


class Loader:
    """A data loader: batches of two, of a list of items."""

    def __init__(self, **columns: list[Any]):
        names = list(columns)
        self.dataset = [
            dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]

    def __iter__(self) -> Any:
        for first in range(0, len(self.dataset), 2):
            batch = self.dataset[first : first + 2]
            yield {name: [item[name] for item in batch] for name in batch[0]}


class Decoder:
    """As one of torchcodec: frames (T, 3, H, W) by their numbers."""

    def __init__(self, frames: np.ndarray):
        self.frames = frames
        self.metadata = type("Metadata", (), {"num_frames": len(frames)})
        self.asked: list[int] = []

    def get_frames_at(self, indices: list[int]) -> Any:
        self.asked = indices
        return type("Batch", (), {"data": np.moveaxis(self.frames[indices], -1, 1)})


@pytest.fixture
def encoder(searcher: tuple[Any, Processor]) -> Encoder:
    model, processor = searcher
    return Encoder(model, processor, ("video", "text"), ModelIdentity(model))


def test_videos_and_texts(
    encoder: Encoder, searcher: tuple[Any, Processor], six_clips: list[Path]
) -> None:
    videos = [one.features["embedding"] for one in vp.encode(*searcher, six_clips[:4])]
    texts = vp.embed_texts(*searcher, TEXTS)
    content: list[Any] = [
        six_clips[0],
        {"bytes": six_clips[1].read_bytes(), "path": None},
        {"bytes": None, "path": str(six_clips[2])},
        six_clips[3].read_bytes(),
    ]
    np.testing.assert_array_equal(encoder.encode(Loader(video=content)), videos)
    np.testing.assert_array_equal(encoder.encode(Loader(text=TEXTS, id=list("abcd"))), texts)
    both = encoder.encode(Loader(text=TEXTS, video=content))
    np.testing.assert_array_equal(both, np.stack(videos) + texts)
    encoder.towers = ("video",)
    np.testing.assert_array_equal(encoder.encode(Loader(text=TEXTS, video=content)), videos)
    with pytest.raises(InputError, match="the items have text, id; expected video, which"):
        encoder.encode(Loader(text=TEXTS, id=list("abcd")))


def test_a_model_without_text_gives_the_pooled_feature(
    six_clips: list[Path], converted: Any
) -> None:
    model, processor = vp.load(converted("encoder_mild"))
    encoder = Encoder(model, processor, checked_towers(model, None), ModelIdentity(model))
    pooled = [one.features["pooled"] for one in vp.encode(model, processor, six_clips[:2])]
    np.testing.assert_array_equal(encoder.encode(Loader(video=six_clips[:2])), pooled)
    for towers in (("text",), ("video", "text"), (), ("sound",)):
        with pytest.raises(InputError, match=r"towers is .*encoder_mild has 'video'"):
            checked_towers(model, towers)


def test_towers_of_a_model_with_text(searcher: tuple[Any, Processor]) -> None:
    model, _ = searcher
    assert checked_towers(model, None) == checked_towers(model, ["text", "video"])
    assert checked_towers(model, "text") == ("text",)


def test_frames(encoder: Encoder, tmp_path: Path) -> None:
    """A tensor and a decoder give the frames that a file with the same ones gives."""
    frames = np.random.default_rng(0).integers(0, 256, (11, 24, 30, 3), np.uint8)
    decoder = Decoder(frames)
    forms = [frames, np.moveaxis(frames, -1, 1), decoder]
    expected = encoder.processor.read(frames)
    for form in forms:
        source = source_of(form, tmp_path / "video", encoder.processor.num_frames)
        np.testing.assert_array_equal(encoder.processor.read(source), expected)
    assert decoder.asked == [0, 2, 5, 8]  # As in the official demos.
    assert len(source_of(decoder, tmp_path / "video", None)) == 11


@pytest.mark.parametrize(
    ("item", "error", "message"),
    [
        (3, InputTypeError, "is a int; expected a file"),
        (np.zeros((2, 3)), InputTypeError, "is a ndarray; expected a file"),
        ({"bytes": None, "path": None}, InputError, "has neither bytes nor a path"),
    ],
)
def test_what_is_no_video(item: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        source_of(item, tmp_path / "video", 4)


def test_without_mteb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(MissingLibraryError, match=r"needs mteb: pip install 'videoprism_mlx\[mteb"):
        vp.mteb.load("no-such-model")
