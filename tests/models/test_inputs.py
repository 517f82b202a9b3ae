"""What may enter a model, and what is said of the rest."""

import mlx.core as mx
import numpy as np
import pytest
from conftest import reference_config

import videoprism_mlx as vp


@pytest.fixture(scope="module")
def clip() -> vp.FactorizedVideoCLIP:
    mx.random.seed(0)
    return vp.get_model(reference_config("clip"))


VIDEO = np.random.RandomState(0).uniform(size=(1, 2, 18, 18, 3)).astype(np.float32)
WITH_NAN = VIDEO.copy()
WITH_NAN[0, 1, 3, 4, 2] = np.nan


@pytest.mark.parametrize(
    ("video", "error", "message"),
    [
        (VIDEO[0], ValueError, r"shape \(2, 18, 18, 3\); expected \(batch, frames.*video\[None\]"),
        (VIDEO[None], ValueError, r"expected \(batch, frames, height, width, 3\)"),
        (VIDEO.transpose(0, 1, 4, 2, 3), ValueError, "three colour channels, as the last axis"),
        (VIDEO[..., :1], ValueError, "three colour channels"),
        (VIDEO[:, :, :12], ValueError, "frames of 12 x 18; expected square"),
        (VIDEO[:, :, :16, :16], ValueError, "multiple of the patch size 6, such as 18 x 18"),
        (VIDEO[:, :0], ValueError, "which is empty"),
        (VIDEO[:0], ValueError, "which is empty"),
        (VIDEO[:, :, :0, :0], ValueError, "which is empty"),
        ((VIDEO * 255).astype(np.uint8), TypeError, r"uint8; expected floats.*/ 255"),
        ((VIDEO * 255).astype(np.int64), TypeError, r"int64; expected floats"),
        (VIDEO * 255, ValueError, r"values from .* to 25.*; expected floats in \[0, 1\]"),
        (WITH_NAN, ValueError, "holds NaN"),
        (WITH_NAN * np.inf, ValueError, "holds NaN"),
        ("clip.mp4", TypeError, "is a str that is not an array of numbers"),
        (VIDEO.astype(object), TypeError, "is a ndarray that is not an array of numbers"),
        ([[1.0], [1.0, 2.0]], TypeError, "is a list that is not an array of numbers"),
    ],
)
def test_bad_videos(
    clip: vp.FactorizedVideoCLIP, video: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        clip(video)
    with pytest.raises(error, match=message):
        clip.vision_encoder(video)


def flipped_view(video: np.ndarray) -> np.ndarray:
    return video[..., ::-1].copy()[..., ::-1]


def big_endian(video: np.ndarray) -> np.ndarray:
    return video.astype(">f4")


@pytest.mark.parametrize(
    "convert",
    [
        np.asarray,
        mx.array,
        np.ndarray.tolist,
        np.float64,
        flipped_view,
        big_endian,
        np.asfortranarray,
    ],
)
def test_videos_come_as_any_array(clip: vp.FactorizedVideoCLIP, convert: type) -> None:
    expected = clip(VIDEO)[0]
    assert mx.allclose(clip(convert(VIDEO))[0], expected, atol=1e-6).item()


def test_overshoot_passes(clip: vp.FactorizedVideoCLIP) -> None:
    assert mx.isfinite(clip(VIDEO * 1.2 - 0.1)[0]).all().item()


IDS, PADDINGS = np.array([[3, 5, 63], [1, 0, 0]]), np.array([[0, 0, 0], [0, 1, 1]])


@pytest.mark.parametrize(
    ("ids", "paddings", "error", "message"),
    [
        (IDS[0], PADDINGS[0], ValueError, r"shape \(3,\); expected \(batch, length\).*ids\[None\]"),
        (IDS + 1, PADDINGS, ValueError, "ids from 1 to 64; this model's vocabulary is 0 to 63"),
        (IDS - 1, PADDINGS, ValueError, "ids from -1 to 62"),
        (IDS * 1.0, PADDINGS, TypeError, "float32; expected integers"),
        (IDS, None, ValueError, "came without text_paddings"),
        (IDS, PADDINGS[:, :2], ValueError, r"shape \(2, 2\); expected \(2, 3\)"),
        (IDS, PADDINGS[:1], ValueError, r"shape \(1, 3\); expected \(2, 3\)"),
        (IDS, PADDINGS * 5, ValueError, "values from 0 to 5; expected 1 where padded"),
        (IDS, PADDINGS * np.nan, ValueError, "values from nan"),
    ],
)
def test_bad_texts(
    clip: vp.FactorizedVideoCLIP,
    ids: np.ndarray,
    paddings: np.ndarray | None,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        clip(text_token_ids=ids, text_paddings=paddings)


def test_bad_frame_paddings(clip: vp.FactorizedVideoCLIP) -> None:
    with pytest.raises(ValueError, match=r"frame_paddings has shape \(1, 3\); expected \(1, 2\)"):
        clip(VIDEO, frame_paddings=np.zeros((1, 3)))


@pytest.mark.parametrize("dtype", [np.float32, np.int32, bool])
def test_paddings_of_any_type(clip: vp.FactorizedVideoCLIP, dtype: type) -> None:
    expected = clip(text_token_ids=IDS, text_paddings=PADDINGS)[1]
    got = clip(text_token_ids=IDS, text_paddings=PADDINGS.astype(dtype))[1]
    assert mx.array_equal(got, expected).item()


def test_nothing_in_nothing_out(clip: vp.FactorizedVideoCLIP) -> None:
    assert clip() == (None, None, {})


def test_an_empty_row_leaves_the_class_token(clip: vp.FactorizedVideoCLIP) -> None:
    nothing = np.zeros((2, 0))
    embeddings = clip(text_token_ids=nothing.astype(np.int32), text_paddings=nothing)[1]
    assert embeddings.shape == (2, 24)
    assert mx.array_equal(embeddings[0], embeddings[1]).item()


def test_intermediates_by_name(clip: vp.FactorizedVideoCLIP) -> None:
    names = {"spatial_features", "spatiotemporal_features", "frame_embeddings"}
    assert clip(VIDEO, return_intermediate=True)[2].keys() == names
    assert clip(VIDEO)[2] == {}
    for name in names:
        assert clip(VIDEO, return_intermediate=[name])[2].keys() == {name}
        assert clip(VIDEO, return_intermediate=name)[2].keys() == {name}
        assert clip(VIDEO, return_intermediate=np.array([name]))[2].keys() == {name}
    assert clip(VIDEO, return_intermediate=["global_embeddings"])[2] == {}
    assert clip(VIDEO, return_intermediate=np.True_)[2].keys() == names
    assert clip(VIDEO, return_intermediate=None)[2] == {}


def test_intermediates_of_the_other_models() -> None:
    encoder = vp.get_model(reference_config("encoder"))
    classifier = vp.get_model(reference_config("classifier"))
    names = {"spatial_features", "spatiotemporal_features", "global_embeddings"}
    assert encoder(VIDEO, return_intermediate=True)[1].keys() == {"spatial_features"}
    assert classifier(VIDEO, return_intermediate=True)[1].keys() == names
    for name in names:
        assert classifier(VIDEO, return_intermediate=[name])[1].keys() == {name}
