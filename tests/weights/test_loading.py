"""Models by name, directory and Hub id, against a stand-in for the download."""

import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as mx_nn
import numpy as np
import pytest
from conftest import REFERENCE, reference_config
from mlx.utils import tree_flatten

import videoprism_mlx as vp
from videoprism_mlx.errors import CheckpointError
from videoprism_mlx.weights.directory import CONFIG_FILE, WEIGHTS_FILE, read_config

Converted = Callable[[str], Path]
Released = Callable[[str], list[dict[str, Any]]]

VIDEO = np.random.RandomState(1).uniform(size=(1, 4, 18, 18, 3)).astype(np.float32)


def parameters(model: Any) -> dict[str, np.ndarray]:
    return {name: np.array(array) for name, array in tree_flatten(model.parameters())}


def test_by_name_it_is_downloaded_and_converted_once(released: Released, tmp_path: Path) -> None:
    calls = released("encoder")
    first = vp.load_model("videoprism_tiny")
    second = vp.load_model("google/videoprism-tiny")
    assert calls == [
        {"repo_id": "google/videoprism-tiny", "filename": "flax_tiny.npz", "revision": None}
    ]
    assert isinstance(first, vp.FactorizedEncoder) and not first.training
    np.testing.assert_equal(parameters(first), parameters(second))
    kept = tmp_path / "cache/models/videoprism_tiny"
    assert kept.is_dir()
    source = read_config(kept)["source"]
    assert (source["repository"], source["revision"]) == ("google/videoprism-tiny", "main")


def test_a_revision_is_asked_for_and_kept_apart(released: Released, tmp_path: Path) -> None:
    calls = released("encoder")
    vp.load_model("videoprism_tiny", revision="refs/pr/1")
    assert calls[0]["revision"] == "refs/pr/1"
    assert [path.name for path in (tmp_path / "cache/models").iterdir()] == [
        "videoprism_tiny@refs_pr_1"
    ]


LOAD_BESIDE_ANOTHER = """
import sys, time
from pathlib import Path
import huggingface_hub, numpy as np, videoprism_mlx as vp
from videoprism_mlx import models

checkpoint, config, own, other = map(Path, sys.argv[1:])
huggingface_hub.hf_hub_download = lambda **call: str(checkpoint)
huggingface_hub.get_hf_file_metadata = lambda *call, **options: None
models.CONFIGS["videoprism_tiny"] = vp.models.get_config(vp.convert.flax.given_config(config))
models.RELEASES["videoprism_tiny"] = models.Release("google/videoprism-tiny", "flax_tiny.npz")
write = vp.convert.flax.write_directory

def write_together(*arguments, **options):  # Both are about to write before either has.
    own.touch()
    while not other.exists():
        time.sleep(0.01)
    write(*arguments, **options)

vp.convert.flax.write_directory = write_together
video = np.random.RandomState(1).uniform(size=(1, 4, 18, 18, 3))
print(vp.load_model("videoprism_tiny")(video)[0].sum().item())
"""


def test_two_processes_at_once_both_end_up_with_a_good_copy(
    converted: Converted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VIDEOPRISM_MLX_CACHE", str(tmp_path / "cache"))
    files = [REFERENCE / "encoder" / "checkpoint.npz", REFERENCE / "encoder" / "config.json"]
    flags = [tmp_path / "one", tmp_path / "two"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LOAD_BESIDE_ANOTHER, *files, *order],
            stdout=subprocess.PIPE,
            text=True,
        )
        for order in (flags, flags[::-1])
    ]
    printed = [process.communicate(timeout=60)[0] for process in processes]
    expected = vp.load_model(converted("encoder"))(VIDEO)[0].sum().item()
    assert printed == [f"{expected}\n"] * 2
    assert [path.name for path in (tmp_path / "cache/models").iterdir()] == ["videoprism_tiny"]


def test_without_a_network(
    released: Released, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub

    def refuse(**call: Any) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection\nand more")

    released("encoder")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(
        ConnectionError,
        match=r"could not fetch flax_tiny.npz of google/videoprism-tiny: no connection; "
        r".*videoprism-mlx convert flax_tiny.npz -o DIRECTORY",
    ):
        vp.load_model("videoprism_tiny")
    assert not (tmp_path / "cache").exists()


def test_a_model_directory_from_the_hub(
    converted: Converted, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    calls = []

    def download(**call: Any) -> str:
        calls.append(call)
        return str(converted("clip"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *_, **__: None)
    model = vp.load_model("someone/videoprism-lvt-mlx", revision="v1")
    np.testing.assert_equal(parameters(model), parameters(vp.load_model(converted("clip"))))
    assert calls[0]["repo_id"] == "someone/videoprism-lvt-mlx" and calls[0]["revision"] == "v1"


@pytest.mark.parametrize(
    ("name", "part"),
    [("encoder", ""), ("clip", "vision_encoder."), ("classifier", "encoder.")],
)
def test_the_video_encoder_of_every_family(name: str, part: str, converted: Converted) -> None:
    encoder = vp.load_video_encoder(converted(name))
    assert isinstance(encoder, vp.FactorizedEncoder)
    whole = parameters(vp.load_model(converted(name)))
    for key, array in parameters(encoder).items():
        np.testing.assert_array_equal(array, whole[part + key])
    features = encoder(VIDEO)[0]
    with_outputs = vp.load_model(converted(name))(VIDEO, return_intermediate=True)
    expected = with_outputs[-1].get("spatiotemporal_features", with_outputs[0])
    np.testing.assert_array_equal(np.array(features), np.array(expected))


@pytest.mark.parametrize("name", ["encoder", "clip_primer_hybrid", "classifier"])
def test_a_video_encoder_can_be_saved_by_itself(
    name: str, converted: Converted, tmp_path: Path
) -> None:
    encoder = vp.load_video_encoder(converted(name))
    vp.save_model(encoder, tmp_path / "saved")
    again = vp.load_model(tmp_path / "saved")
    assert type(again) is vp.FactorizedEncoder
    np.testing.assert_array_equal(np.array(again(VIDEO)[0]), np.array(encoder(VIDEO)[0]))


def test_a_text_encoder_has_no_video_encoder(converted: Converted) -> None:
    with pytest.raises(
        ValueError, match=f"{converted('text')} has no video encoder; load a model that takes video"
    ):
        vp.load_video_encoder(converted("text"))


@pytest.mark.parametrize("name", ["encoder", "clip"])
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_a_classifier_on_any_backbone(
    name: str, dtype: str | None, converted: Converted, caplog: pytest.LogCaptureFixture
) -> None:
    classifier = vp.load_classifier(converted(name), num_classes=5, dtype=dtype)
    encoder = vp.load_video_encoder(converted(name), dtype=dtype)
    for key, array in tree_flatten(encoder.parameters()):
        ours = dict(tree_flatten(classifier.encoder.parameters()))[key]
        assert mx.array_equal(ours, array).item() and ours.dtype == array.dtype
    assert classifier(VIDEO)[0].shape == (1, 5)
    assert classifier(VIDEO)[0].dtype == getattr(mx, dtype or "float32")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    message = caplog.text
    assert "atten_pooler" in message and "projection" in message and "random" in message


def test_a_saved_classifier(
    converted: Converted, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    fresh = vp.load_classifier(converted("encoder"), num_classes=5)
    caplog.clear()
    vp.save_model(fresh, tmp_path / "saved")
    for saved in (
        vp.load_classifier(tmp_path / "saved"),
        vp.load_classifier(tmp_path / "saved", num_classes=5),
        vp.load_model(tmp_path / "saved"),
    ):
        np.testing.assert_equal(parameters(saved), parameters(fresh))
    assert not caplog.records
    with pytest.raises(ValueError, match="is a classifier of 5 classes, not of 6"):
        vp.load_classifier(tmp_path / "saved", num_classes=6)


def test_a_fresh_head_needs_a_size(converted: Converted) -> None:
    with pytest.raises(ValueError, match="give num_classes"):
        vp.load_classifier(converted("encoder"))


def test_the_calls_of_users_scripts(
    released: Released, spm_model: Path, converted: Converted
) -> None:
    released("clip")
    video = mx.array(VIDEO)
    features, outputs = vp.load_video_encoder("videoprism_tiny")(video)
    assert features.reshape(1, 4, 3, 3, 24).shape == (1, 4, 3, 3, 24) and outputs == {}

    model = vp.load_model("videoprism_tiny")
    tokenizer = vp.load_text_tokenizer(str(spm_model))
    ids, paddings = vp.tokenize_texts(tokenizer, ["a red cat runs.", "a blue ball"])
    video_emb, text_emb, outputs = model(video, ids, paddings)
    similarity = np.array(video_emb @ text_emb.T)
    assert similarity.shape == (1, 2) and np.all(np.abs(similarity) <= 1 + 1e-6)

    classifier = vp.load_classifier("videoprism_tiny", num_classes=10)
    logits, outputs = classifier(video, return_intermediate=True)
    assert logits.shape == (1, 10) and 0 <= mx.argmax(logits[0]).item() < 10
    assert outputs.keys() == {"spatial_features", "spatiotemporal_features", "global_embeddings"}


@pytest.fixture
def directory(converted: Converted, tmp_path: Path) -> Path:
    """A copy of the encoder's model directory, to be spoilt."""
    return Path(shutil.copytree(converted("encoder"), tmp_path / "model"))


def respoil(directory: Path, change: Callable[[dict[str, mx.array]], object]) -> None:
    arrays = dict(mx.load(str(directory / WEIGHTS_FILE)))
    mx.eval(arrays)
    change(arrays)
    mx.save_safetensors(str(directory / WEIGHTS_FILE), arrays)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("spatial_ln.bias"), r"missing: spatial_ln.bias, of shape \(24,\)"),
        (lambda a: a.update(extra=mx.zeros(3)), r"not of this model: extra, of shape \(3,\)"),
        (
            lambda a: a.update({"spatial_ln.bias": mx.zeros((1, 24))}),
            r"misshapen: spatial_ln.bias has shape \(1, 24\), expected \(24,\)",
        ),
        (
            lambda a: a.update({"spatial_ln.bias": mx.zeros((24,), mx.int32)}),
            "spatial_ln.bias is of type I32; expected one of F32, BF16, F16",
        ),
    ],
)
def test_loading_is_strict(change: Callable[[dict], object], message: str, directory: Path) -> None:
    respoil(directory, change)
    with pytest.raises(CheckpointError, match=message):
        vp.load_model(directory)


def test_a_part_is_only_taken_from_a_whole(converted: Converted, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(converted("clip"), tmp_path / "clip"))
    respoil(directory, lambda arrays: arrays.pop("text_encoder.cls_emb"))
    with pytest.raises(CheckpointError, match=r"missing: text_encoder.cls_emb"):
        vp.load_video_encoder(directory)


def test_weights_in_float64(directory: Path) -> None:
    from safetensors.numpy import save_file

    arrays = {
        key: np.array(a, np.float64) for key, a in mx.load(str(directory / WEIGHTS_FILE)).items()
    }
    save_file(arrays, directory / WEIGHTS_FILE)
    with pytest.raises(CheckpointError, match="is of type F64; expected one of F32"):
        vp.load_model(directory)


@pytest.mark.parametrize("spoil", ["config", "weights"])
def test_a_spoilt_copy_in_the_cache_says_what_to_do(
    spoil: str, released: Released, tmp_path: Path
) -> None:
    released("encoder")
    vp.load_model("videoprism_tiny")
    kept = tmp_path / "cache/models/videoprism_tiny"
    if spoil == "config":
        (kept / CONFIG_FILE).write_text("{}")
    else:
        (kept / WEIGHTS_FILE).write_bytes(b"")
    with pytest.raises(CheckpointError, match=rf"remove {kept}, and it will be converted again"):
        vp.load_model("videoprism_tiny")


def test_a_directory_has_no_revision(directory: Path) -> None:
    with pytest.raises(ValueError, match="a local directory, which has no revision 'v1'"):
        vp.load_model(directory, revision="v1")


def test_a_module_of_another_kind_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a Linear without a configuration cannot be saved"):
        vp.save_model(mx_nn.Linear(2, 2), tmp_path / "m")


def test_a_directory_without_weights_or_config(directory: Path) -> None:
    (directory / WEIGHTS_FILE).unlink()
    with pytest.raises(CheckpointError, match="the weights are missing"):
        vp.load_model(directory)
    (directory / CONFIG_FILE).unlink()
    with pytest.raises(CheckpointError, match=r"is not a model directory: it has no config.json"):
        vp.load_model(directory)


def test_weights_cut_short(directory: Path) -> None:
    weights = directory / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="is damaged or not a safetensors file"):
        vp.load_model(directory)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "holds a list; expected an object"),
        ('{"model": "FactorizedEncoder", "heads": 3}', r"config.json: .*no setting 'heads'"),
        ('{"model": "FactorizedEncoder", "norm_policy": "x"}', "norm_policy is 'x'"),
        ("{}", r'"model" is None; expected one of'),
    ],
)
def test_a_bad_config(text: str, message: str, directory: Path) -> None:
    (directory / CONFIG_FILE).write_text(text)
    with pytest.raises(ValueError, match=message):
        vp.load_model(directory)


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'videoprism_lvt_public_v1_base'"):
        vp.load_model("videoprism_lvt_publc_v1_base")
    with pytest.raises(ValueError, match="did you mean 'google/videoprism-base-f16r288'"):
        vp.load_model("google/videoprism-base-f16r28")
    with pytest.raises(
        ValueError, match=r"without published weights\. Convert your own checkpoint"
    ):
        vp.load_model("videoprism_lvt_v1_giant")
    with pytest.raises(ValueError, match="the weights of videoprism_public_v1_large fit it"):
        vp.load_model("videoprism_v1_large")
    with pytest.raises(ValueError, match=r"is a file; expected a model directory: convert it"):
        vp.load_model(REFERENCE / "clip" / "checkpoint.npz")
    with pytest.raises(ValueError, match="there is no such directory"):
        vp.load_model(tmp_path / "nothing")


def test_the_home_of_an_unknown_user() -> None:
    with pytest.raises(vp.VideoPrismError, match="'~no_such_user/model' cannot be used as a path"):
        vp.load_model("~no_such_user/model")


def test_saving_keeps_what_training_changed(converted: Converted, tmp_path: Path) -> None:
    model = vp.load_model(converted("encoder"))
    model.spatial_ln.bias = model.spatial_ln.bias + 1
    vp.save_model(model, tmp_path / "saved")
    again = vp.load_model(tmp_path / "saved")
    np.testing.assert_equal(parameters(again), parameters(model))
    assert again.config == vp.models.checked_config(reference_config("encoder"))
    with pytest.raises(FileExistsError):
        vp.save_model(model, tmp_path / "saved")
