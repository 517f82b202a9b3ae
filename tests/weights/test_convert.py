"""Checkpoints to model directories and back."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from conftest import MODELS, REFERENCE, reference_config
from thinned import thinned

import videoprism_mlx as vp
from videoprism_mlx.convert.rules import leaf
from videoprism_mlx.files.checksum import with_checksum
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.tokenizers import TOKENIZER_FILE
from videoprism_mlx.weights.directory import CONFIG_FILE, WEIGHTS_FILE

CHECKPOINT = REFERENCE / "clip" / "checkpoint.npz"
CONFIG = reference_config("clip")


def weights(directory: Path) -> dict[str, np.ndarray]:
    return {
        name: np.array(array.astype(mx.float32))
        for name, array in mx.load(str(directory / WEIGHTS_FILE)).items()
    }


def changed_checkpoint(path: Path, change: Callable[[dict[str, np.ndarray]], object]) -> Path:
    """The clip model's checkpoint with `change` done to its arrays."""
    with np.load(CHECKPOINT) as saved:
        arrays = dict(saved)
    change(arrays)
    np.savez(path, **arrays)
    return path


def test_names_on_both_sides() -> None:
    assert leaf(
        "vision_encoder.spatial_encoder.transformers_stack.x_layers.3.self_attention.query.weight"
    )[1:3] == (
        "params/vision_encoder/spatial_encoder/transformers_stack/x_layers/self_attention/query/w",
        3,
    )
    for mlx_name, flax_key in {
        "patch_projection.linear.weight": "params/patch_projection/linear/kernel",
        "spatial_ln.weight": "params/spatial_ln/scale",
        "spatial_ln.bias": "params/spatial_ln/bias",
        "temporal_pos_emb.weight": "params/temporal_pos_emb/emb_var",
        "text_encoder.cls_emb": "params/text_encoder/cls_emb",
        "atten_pooler.pooling_attention.per_dim_scale.per_dim_scale": (
            "params/atten_pooler/pooling_attention/per_dim_scale/per_dim_scale"
        ),
        "atten_pooler.pooling_attention.post.bias": (
            "params/atten_pooler/pooling_attention/post/b"
        ),
    }.items():
        assert leaf(mlx_name).key == flax_key


def test_values_are_where_they_belong(converted: Callable[[str], Path]) -> None:
    ours = weights(converted("clip"))
    with np.load(CHECKPOINT) as flax:
        stack = "params/text_encoder/unimodal_transformer/x_layers"
        query = flax[f"{stack}/self_attention/query/w"][1]
        post = flax[f"{stack}/self_attention/post/w"][1]
        scale = flax[f"{stack}/layer_norm/scale"][1]
    own = "text_encoder.unimodal_transformer.x_layers.1"
    for row, (head, width) in {0: (0, 0), 7: (1, 1), 23: (3, 5)}.items():
        np.testing.assert_array_equal(
            ours[f"{own}.self_attention.query.weight"][row], query[:, head, width]
        )
        np.testing.assert_array_equal(
            ours[f"{own}.self_attention.post.weight"][:, row], post[:, head, width]
        )
    np.testing.assert_array_equal(ours[f"{own}.layer_norm.weight"], 1 + scale)


def test_a_model_directory(converted: Callable[[str], Path]) -> None:
    directory = converted("clip")
    assert sorted(path.name for path in directory.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]
    config = json.loads((directory / CONFIG_FILE).read_text())
    source = config["source"]
    assert config == with_checksum({**config, "source": source})
    assert config.pop("weights_sha256") == sha256(directory / WEIGHTS_FILE)
    del config["source"], config["crc32"]
    assert config == CONFIG
    assert source["sha256"] == sha256(CHECKPOINT)
    assert source["file"] == "checkpoint.npz"
    assert source["layout"] == "scanned"


def test_the_tokenizer_goes_with_it(
    spm_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vp.convert.flax_to_mlx(CHECKPOINT, tmp_path / "m", CONFIG, tokenizer=spm_model)
    assert (tmp_path / "m" / TOKENIZER_FILE).read_bytes() == spm_model.read_bytes()
    with pytest.raises(ValueError, match="has 40 pieces; the model's vocabulary is 30"):
        vp.convert.flax.tokenizer_for({"vocabulary_size": 30}, spm_model)
    with caplog.at_level("INFO", logger="videoprism_mlx"):
        assert vp.convert.flax.tokenizer_for({"vocabulary_size": 30}, None) is None
    assert "name its .model file with --tokenizer" in caplog.text


DTYPES = ["float32", "bfloat16", "float16"]


@pytest.mark.parametrize(("name", "dtype", "scan"), thinned(MODELS, DTYPES, [True, False], keep=2))
def test_a_round_trip_gives_the_same_bits(
    name: str, dtype: str, scan: bool, tmp_path: Path
) -> None:
    config = reference_config(name)
    checkpoint = REFERENCE / name / "checkpoint.npz"
    first = vp.convert.flax_to_mlx(checkpoint, tmp_path / "first", config, dtype)
    back = vp.convert.mlx_to_flax(first.output, tmp_path / "back.npz", scan=scan)
    second = vp.convert.flax_to_mlx(back.output, tmp_path / "second", config, dtype)
    assert first.parameters == back.parameters == second.parameters
    before, after = weights(first.output), weights(second.output)
    assert before.keys() == after.keys()
    for key, array in before.items():
        np.testing.assert_array_equal(after[key], array)


def test_back_to_flax_is_the_official_layout(
    converted: Callable[[str], Path], tmp_path: Path
) -> None:
    vp.convert.mlx_to_flax(converted("clip"), tmp_path / "flax.npz")
    with np.load(CHECKPOINT) as official, np.load(tmp_path / "flax.npz") as ours:
        assert set(ours.files) == set(official.files)
        for key in official.files:
            assert ours[key].dtype == np.float32
            np.testing.assert_array_equal(ours[key], official[key])


def test_unscanned_checkpoints_load_and_go_back_as_they_came(
    converted: Callable[[str], Path], tmp_path: Path
) -> None:
    checkpoint = tmp_path / "unscanned.npz"
    vp.convert.mlx_to_flax(converted("clip"), checkpoint, scan=False)
    with np.load(checkpoint) as saved:
        keys = set(saved.files)
    assert "params/text_encoder/unimodal_transformer/x_layers_1/layer_norm/scale" in keys
    assert not any("/x_layers/" in key for key in keys)
    vp.convert.flax_to_mlx(checkpoint, tmp_path / "m", CONFIG)
    np.testing.assert_equal(weights(tmp_path / "m"), weights(converted("clip")))
    vp.convert.mlx_to_flax(tmp_path / "m", tmp_path / "back.npz")
    with np.load(tmp_path / "back.npz") as saved:
        assert set(saved.files) == keys


@pytest.mark.parametrize(
    "kind", ["float16", "float64", ">f4", "bfloat16", "compressed", "rootless"]
)
def test_other_ways_to_store_a_checkpoint(
    kind: str, converted: Callable[[str], Path], tmp_path: Path
) -> None:
    with np.load(CHECKPOINT) as saved:
        arrays = dict(saved)
    if kind == "rootless":
        arrays = {key.removeprefix("params/"): array for key, array in arrays.items()}
    elif kind == "bfloat16":  # The upper half of a float32, which NumPy stores as V2.
        arrays = {
            key: (array.view(np.uint32) >> 16).astype(np.uint16).view("V2")
            for key, array in arrays.items()
        }
    elif kind != "compressed":
        arrays = {key: array.astype(kind) for key, array in arrays.items()}
    save = np.savez_compressed if kind == "compressed" else np.savez
    save(tmp_path / "x.npz", **arrays)
    vp.convert.flax_to_mlx(tmp_path / "x.npz", tmp_path / "m", CONFIG)
    ours, plain = weights(tmp_path / "m"), weights(converted("clip"))
    relative = {"float16": 2e-3, "bfloat16": 8e-3}.get(kind, 0)
    for key, array in plain.items():
        np.testing.assert_allclose(ours[key], array, rtol=relative, atol=1e-6 if relative else 0)


def test_a_config_by_mapping_file_directory_or_name(
    converted: Callable[[str], Path], tmp_path: Path
) -> None:
    for number, config in enumerate(
        [CONFIG, REFERENCE / "clip" / "config.json", str(converted("clip"))]
    ):
        result = vp.convert.flax_to_mlx(CHECKPOINT, tmp_path / str(number), config)
        assert result.model == "FactorizedVideoCLIP"
    with pytest.raises(ValueError, match=r"no model is called 'videoprism_v1_bass' .did you mean"):
        vp.convert.flax_to_mlx(CHECKPOINT, tmp_path / "m", "videoprism_v1_bass")


def test_a_known_configuration_is_recognised_by_its_shapes() -> None:
    for name in ("videoprism_v1_giant", "videoprism_lvt_public_v1_large", "videoprism_vc_v1_base"):
        config = vp.models.get_config(name)
        if "num_classes" in config:
            config["num_classes"] = 31
        layout = vp.convert.rules.Layout(config)
        for scanned in ((), layout.groups):
            shapes = layout.expected(scanned)
            assert vp.convert.flax.matching_config(shapes, Path("x.npz")) == config


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="already exists; name another output"):
        vp.convert.flax_to_mlx(CHECKPOINT, tmp_path / "m", CONFIG)
    assert (tmp_path / "m" / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileExistsError):  # A file does not take a directory's place.
        vp.convert.draw_checkpoint(CONFIG, tmp_path / "empty")
    vp.convert.flax_to_mlx(CHECKPOINT, tmp_path / "empty", CONFIG)
    (tmp_path / "x.npz").write_text("mine")
    with pytest.raises(FileExistsError):
        vp.convert.draw_checkpoint(CONFIG, tmp_path / "x.npz")
    assert (tmp_path / "x.npz").read_text() == "mine"


@pytest.mark.parametrize("to", ["mlx", "flax"])
def test_a_full_disk_leaves_nothing(
    to: str, tmp_path: Path, converted: Callable[[str], Path]
) -> None:
    """A limit on the size of files stands in for a disk that fills."""
    script = (
        "import resource, signal, sys, videoprism_mlx as vp\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "source, output, config, to = sys.argv[1:]\n"
        "if to == 'mlx': vp.convert.flax_to_mlx(source, output, config)\n"
        "else: vp.convert.mlx_to_flax(source, output)\n"
    )
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            script,
            CHECKPOINT if to == "mlx" else converted("clip"),
            tmp_path / "new" / "m",
            REFERENCE / "clip" / "config.json",
            to,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    code = errno.ENOSPC if to == "mlx" else errno.EFBIG
    last = run.stderr.splitlines()[-1]
    assert last.startswith(f"OSError: [Errno {code}]") and last.endswith("new/m'")
    assert "MB are free on the disk: make room or write elsewhere" in last
    assert list(tmp_path.iterdir()) == []


def test_a_killed_conversion_leaves_nothing_to_trust(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, mlx.core as mx, videoprism_mlx as vp\n"
        "save = mx.save_safetensors\n"
        "def die(path, *rest):\n"
        "    save(path, *rest)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "mx.save_safetensors = die\n"
        "vp.convert.flax_to_mlx(*sys.argv[1:])"
    )
    config = REFERENCE / "clip" / "config.json"
    command = [sys.executable, "-c", script, CHECKPOINT, tmp_path / "m", config]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "m").exists()
    assert len(list(tmp_path.iterdir())) == 1  # What it had written, under a name of its own.
    vp.convert.flax_to_mlx(CHECKPOINT, tmp_path / "m", CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.slow
def test_time_and_memory_of_a_full_size_conversion(tmp_path: Path) -> None:
    checkpoint = vp.convert.draw_checkpoint("videoprism_lvt_public_v1_base", tmp_path / "x.npz")
    # On Linux, what the system says of a child includes the memory of the process that started it.
    script = (
        "import resource, sys; from videoprism_mlx.cli import main\n"
        "code = main(['convert', *sys.argv[1:]])\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "if sys.platform == 'linux':\n"
        "    peak = open('/proc/self/status').read().split('VmHWM:')[1].split()[0]\n"
        "print('peak', peak); sys.exit(code)"
    )
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script, checkpoint, "-o", tmp_path / "m"],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "VIDEOPRISM_MLX_CACHE": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0
    assert time.perf_counter() - started < 15
    peak = int(done.stdout.split()[-1]) * (1 if sys.platform == "darwin" else 1024)
    assert peak > checkpoint.stat().st_size / 2
    assert peak <= 1.3 * checkpoint.stat().st_size + 300e6


def test_a_stack_without_layers_in_the_scanned_layout(tmp_path: Path) -> None:
    """Flax writes its arrays with a first axis of 0. Earlier versions of this package did not."""
    config = reference_config("encoder") | dict(num_spatial_layers=0, num_temporal_layers=1)
    drawn = vp.convert.draw_checkpoint(config, tmp_path / "flax.npz")
    with np.load(drawn) as saved:
        arrays = dict(saved)
    layers = {key: array for key, array in arrays.items() if "temporal_encoder/" in key}
    empty = {key.replace("temporal", "spatial"): array[:0] for key, array in layers.items()}
    assert layers and empty.keys() <= arrays.keys()
    assert all(arrays[key].shape == array.shape for key, array in empty.items())
    np.savez(tmp_path / "earlier.npz", **{k: v for k, v in arrays.items() if k not in empty})
    for name in ("earlier", "flax"):
        vp.convert.flax_to_mlx(tmp_path / f"{name}.npz", tmp_path / name, config)
    weights = [tmp_path / name / "model.safetensors" for name in ("earlier", "flax")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
