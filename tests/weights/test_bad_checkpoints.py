"""What is said of checkpoints that cannot be converted."""

import os
import pickle
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import REFERENCE, reference_config

import videoprism_mlx as vp
from videoprism_mlx.convert.npz import Archive
from videoprism_mlx.errors import CheckpointError

CHECKPOINT = REFERENCE / "clip" / "checkpoint.npz"
CONFIG = reference_config("clip")


def changed_checkpoint(path: Path, change: Callable[[dict[str, np.ndarray]], object]) -> Path:
    """The clip model's checkpoint with `change` done to its arrays."""
    with np.load(CHECKPOINT) as saved:
        arrays = dict(saved)
    change(arrays)
    np.savez(path, **arrays)
    return path


def test_an_unknown_configuration_is_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"(?s)does not fit.*give its configuration with config="
    ):
        vp.convert.flax_to_mlx(CHECKPOINT, tmp_path / "m")


QUERY = "params/vision_encoder/temporal_encoder/transformers_stack/x_layers/self_attention/query/w"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda arrays: arrays.pop("params/text_encoder/cls_emb"),
            r"missing: params/text_encoder/cls_emb, of shape \(1, 1, 24\)",
        ),
        (
            lambda arrays: arrays.update({"params/extra/w": np.zeros(3)}),
            r"not of this model: params/extra/w, of shape \(3,\)",
        ),
        (
            lambda arrays: arrays.update({QUERY: arrays[QUERY].reshape(1, 24, 6, 4)}),
            r"misshapen: .*query/w has shape \(1, 24, 6, 4\), expected \(1, 24, 4, 6\)",
        ),
        (
            lambda arrays: arrays.update({QUERY: arrays[QUERY].astype(np.int64)}),
            "query/w is of type int64; expected floating-point",
        ),
        (
            lambda arrays: arrays.update({QUERY: arrays[QUERY] * np.nan}),
            "query/w holds NaN or infinite values",
        ),
        (
            lambda arrays: arrays.update({QUERY: arrays[QUERY].astype(np.float64) * 1e300}),
            "query/w holds values beyond the range of mlx.core.float32",
        ),
        (
            lambda arrays: arrays.update({QUERY: arrays[QUERY].astype(object)}),
            "holds Python objects; expected an array of numbers",
        ),
    ],
)
def test_wrong_parameters_are_named(
    change: Callable[[dict], object], message: str, tmp_path: Path
) -> None:
    checkpoint = changed_checkpoint(tmp_path / "x.npz", change)
    with pytest.raises(CheckpointError, match=message):
        vp.convert.flax_to_mlx(checkpoint, tmp_path / "m", CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_a_layer_too_many(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has shape \(2, .*expected \(3, "):
        vp.convert.flax_to_mlx(CHECKPOINT, tmp_path / "m", CONFIG | {"num_unimodal_layers": 3})


class Bomb:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path(os.environ["BOMB"]),))


def test_nothing_is_ever_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "went off"))
    bomb = np.empty(1, object)
    bomb[0] = Bomb()
    np.savez(tmp_path / "bomb.npz", **{"params/x": bomb})
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Bomb()))
    for name in ("bomb.npz", "plain.npz"):
        with pytest.raises(CheckpointError):
            vp.convert.flax_to_mlx(tmp_path / name, tmp_path / "m", CONFIG)
    assert not (tmp_path / "went off").exists()


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_a_checkpoint_cut_short(kept: float, tmp_path: Path) -> None:
    whole = CHECKPOINT.read_bytes()
    (tmp_path / "x.npz").write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(CheckpointError, match=r"damaged, cut short, or not an \.npz"):
        vp.convert.flax_to_mlx(tmp_path / "x.npz", tmp_path / "m", CONFIG)


def test_a_flipped_bit(tmp_path: Path) -> None:
    damaged = bytearray(CHECKPOINT.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "x.npz").write_bytes(damaged)
    with pytest.raises(CheckpointError, match="CRC"):
        vp.convert.flax_to_mlx(tmp_path / "x.npz", tmp_path / "m", CONFIG)
    assert not (tmp_path / "m").exists()


def test_files_of_other_kinds(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        vp.convert.flax_to_mlx(tmp_path / "none.npz", tmp_path / "m", CONFIG)
    with pytest.raises(CheckpointError, match="is a directory"):
        vp.convert.flax_to_mlx(tmp_path, tmp_path / "m", CONFIG)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"'readme.txt', which is not an array"):
        vp.convert.flax_to_mlx(tmp_path / "x.npz", tmp_path / "m", CONFIG)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_header_that_promises_more_than_there_is(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        content = BytesIO()
        np.lib.format.write_array_header_1_0(
            content, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)}
        )
        archive.writestr("params/x.npy", content.getvalue() + b"1234")
    with pytest.raises(CheckpointError, match=r"is damaged: params/x.npy has 4 bytes of data"):
        vp.convert.flax_to_mlx(tmp_path / "x.npz", tmp_path / "m", CONFIG)


@pytest.mark.parametrize("at", range(0, 3000, 100))
def test_damage_anywhere_is_a_checkpoint_error(at: int, tmp_path: Path) -> None:
    whole = bytearray(CHECKPOINT.read_bytes())
    for where in (at, len(whole) - 1 - at):
        spoilt = whole.copy()
        spoilt[where : where + 4] = bytes(255 - byte for byte in spoilt[where : where + 4])
        (tmp_path / "x.npz").write_bytes(spoilt)
        try:
            with Archive(tmp_path / "x.npz") as archive:
                for key in archive.headers:
                    archive.read(key)
        except CheckpointError:
            pass


def test_two_arrays_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(CHECKPOINT.read_bytes())
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.writestr(f"{QUERY}.npy", b"anything")
    with pytest.raises(CheckpointError, match="several arrays of the same name"):
        vp.convert.flax_to_mlx(tmp_path / "x.npz", tmp_path / "m", CONFIG)


def test_values_that_float16_cannot_hold(tmp_path: Path) -> None:
    checkpoint = changed_checkpoint(tmp_path / "x.npz", lambda a: a.update({QUERY: a[QUERY] * 1e6}))
    with pytest.raises(
        CheckpointError, match=r"query/w holds values beyond the range of mlx.core.float16"
    ):
        vp.convert.flax_to_mlx(checkpoint, tmp_path / "m", CONFIG, dtype="float16")
    assert not (tmp_path / "m").exists()
