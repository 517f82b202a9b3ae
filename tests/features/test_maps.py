"""Features by place: those of a still video are equal in all frames, and a moving thing is seen."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

import videoprism_mlx as vp
from videoprism_mlx.convert import draw_checkpoint, flax_to_mlx
from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.features.maps import map_features
from videoprism_mlx.features.processor import processor_for
from videoprism_mlx.pictures import feature_colours

SIDE, PATCH = 8, 4  # Patches of a row, and pixels of a patch's side.
CONFIG = {
    "model": "FactorizedEncoder",
    "patch_size": PATCH,
    "pos_emb_shape": [4, SIDE, SIDE],
    "model_dim": 32,
    "num_spatial_layers": 1,
    "num_temporal_layers": 2,
    "num_heads": 4,
    "mlp_dim": 64,
    "atten_logit_cap": 50.0,
}


def frames_of(folder: Path, columns: list[int]) -> Path:
    """A folder of frames: a bright square on a ramp, in a column of patches in each frame."""
    folder.mkdir()
    for number, column in enumerate(columns):
        ramp = np.linspace(40, 120, SIDE * PATCH).astype(np.uint8)
        image = np.tile(ramp[:, None, None], (1, SIDE * PATCH, 3))
        rows, left = slice(3 * PATCH, 5 * PATCH), column * PATCH
        image[rows, left : left + PATCH] = (255, 230, 0)
        Image.fromarray(image).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> VideoPrismModel:
    """A model with drawn weights, in which the position of a frame counts."""
    folder = tmp_path_factory.mktemp("encoder")
    checkpoint = draw_checkpoint(CONFIG, folder / "flax.npz", seed=3, gain=1.0)
    model = vp.load_model(flax_to_mlx(checkpoint, folder / "model", CONFIG).output)
    positions = model.video_encoder.temporal_pos_emb
    positions.weight = 2 * mx.random.normal(positions.weight.shape, key=mx.random.key(0))
    return model


def colours(model: VideoPrismModel, video: Path, steady: bool) -> np.ndarray:
    """The colours (T, rows, columns, 3) of all frames of a video, as whole numbers."""
    count = len(list(video.iterdir()))
    maps = map_features(model, processor_for(model), video, count, steady=steady)
    return feature_colours(maps.features).astype(int)


# The last window of 10 frames begins at frame 6, in the middle of another one.
@pytest.mark.parametrize("count", [3, 8, 10])
def test_a_still_video_has_the_same_colours_in_all_frames(
    encoder: VideoPrismModel, count: int, tmp_path: Path
) -> None:
    still = frames_of(tmp_path / "still", [2] * count)
    drawn = colours(encoder, still, steady=True)
    assert np.abs(drawn - drawn[0]).max() <= 2
    assert drawn[0].reshape(-1, 3).std(axis=0).max() > 20  # The square and the ramp are seen.
    unsteady = colours(encoder, still, steady=False)
    assert np.abs(unsteady - unsteady[0]).max() > 60


def test_a_moving_thing_is_seen_where_it_is(encoder: VideoPrismModel, tmp_path: Path) -> None:
    columns = list(range(SIDE))
    drawn = colours(encoder, frames_of(tmp_path / "moving", columns), steady=True)
    differs = np.abs(drawn - np.median(drawn, axis=0)).sum(axis=-1)  # (T, rows, columns)
    assert [int(each.sum(axis=0).argmax()) for each in differs] == columns
    here = np.zeros(differs.shape, bool)
    for frame, column in enumerate(columns):
        here[frame, 3:5, column] = True
    assert differs[here].min() > 4 * np.median(differs[~here])


def test_steady_features_have_the_mean_of_the_window(
    encoder: VideoPrismModel, tmp_path: Path
) -> None:
    moving = frames_of(tmp_path / "moving", [1, 2, 3, 4])
    plain, steady = (
        map_features(encoder, processor_for(encoder), moving, 4, steady=steady).features
        for steady in (False, True)
    )
    np.testing.assert_allclose(steady.mean(axis=0), plain.mean(axis=0), atol=1e-5)


def test_one_frame_has_no_position_to_take_out(encoder: VideoPrismModel, tmp_path: Path) -> None:
    frame = frames_of(tmp_path / "frame", [4])
    np.testing.assert_array_equal(colours(encoder, frame, True), colours(encoder, frame, False))
