"""Models that Transformers has written: they load, compute the same, and go back with all bits.

tests/reference/generate_transformers.py has saved them, and what Transformers computes from them.
"""

import json
import re
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from conftest import REFERENCE, reference_config

import videoprism_mlx as vp
from videoprism_mlx.cli import main
from videoprism_mlx.convert import mlx_to_transformers, transformers_to_mlx
from videoprism_mlx.convert.transformers.names import leaf
from videoprism_mlx.convert.transformers.weights import Weights
from videoprism_mlx.convert.verify import distance
from videoprism_mlx.tokenizers import TOKENIZER_FILE

SAVED = REFERENCE / "transformers"
KINDS = ("vision", "classification", "text", "clip")

# Both sides round. Their distance is 1e-6 at most.
ROUNDING = 2e-6

SMALL = dict(
    patch_size=2,
    pos_emb_shape=(2, 3, 2),
    model_dim=8,
    num_spatial_layers=2,
    num_temporal_layers=1,
    num_heads=2,
    mlp_dim=32,
    atten_logit_cap=50.0,
)
CONFIGS: dict[str, dict[str, Any]] = {
    "vision": dict(model="FactorizedEncoder", **SMALL),
    "classification": dict(model="FactorizedVideoClassifier", encoder_params=SMALL, num_classes=3),
    "text": dict(
        model="TextEncoder",
        vocabulary_size=20,
        num_class_tokens=1,
        model_dim=8,
        num_layers=2,
        mlp_dim=12,
        num_heads=2,
        atten_logit_cap=30.0,
    ),
    "clip": dict(
        model="FactorizedVideoCLIP",
        **SMALL,
        num_auxiliary_layers=1,
        vocabulary_size=20,
        num_unimodal_layers=2,
    ),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("VIDEOPRISM_MLX_CACHE", str(cache))
    return cache


def tensors(directory: Path) -> dict[str, mx.array]:
    return Weights(directory).arrays()


def bits(array: mx.array) -> bytes:
    return np.array(array).tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_it_loads_and_computes_what_transformers_computes(kind: str) -> None:
    model = vp.load_model(SAVED / kind)
    with np.load(SAVED / kind / "outputs.npz") as file:
        saved = dict(file)
    given: dict[str, Any] = {}
    if kind != "text":
        given["inputs"] = np.moveaxis(saved["pixel_values_videos"], 2, -1)
    if kind == "clip":
        given |= {
            "text_token_ids": saved["input_ids"],
            "text_paddings": 1 - saved["attention_mask"],
        }
    if kind == "text":
        found = np.array(model(saved["input_ids"], 1 - saved["attention_mask"]))
        # What is computed at padding is not the same, and nobody uses it.
        seen = np.concatenate([saved["attention_mask"], np.ones((2, 1))], -1)[..., None]
        found, theirs = found * seen, saved["official/last_hidden_state"] * seen
        assert distance(found, theirs) < ROUNDING
        assert distance(found, saved["last_hidden_state"] * seen) > 1e-2
        return
    outputs = [np.array(one) for one in model(**given) if isinstance(one, mx.array)]
    names = {"clip": ("video_embeds", "official/text_embeds"), "classification": ("logits",)}
    expected = [saved[name] for name in names.get(kind, ("last_hidden_state",))]
    assert len(outputs) == len(expected)
    apart = [distance(one, other) for one, other in zip(outputs, expected, strict=True)]
    assert max(apart) < ROUNDING


@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_back_with_the_same_bits(kind: str, tmp_path: Path) -> None:
    transformers_to_mlx(SAVED / kind, tmp_path / "ours")
    mlx_to_transformers(tmp_path / "ours", tmp_path / "back")
    before, after = tensors(SAVED / kind), tensors(tmp_path / "back")
    assert before.keys() == after.keys()
    differing = [name for name in before if bits(before[name]) != bits(after[name])]
    # Transformers' own positions of texts become the official ones.
    assert all(name.endswith("position_embedding") for name in differing)
    assert len(differing) == (kind in ("text", "clip"))
    first, second = (
        json.loads((folder / "config.json").read_text())
        for folder in (SAVED / kind, tmp_path / "back")
    )
    assert {key: second[key] for key in ("architectures", "model_type", "dtype")} == {
        key: first[key] for key in ("architectures", "model_type", "dtype")
    }
    transformers_to_mlx(tmp_path / "back", tmp_path / "again")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("ours", "again")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scan", [True, False])
def test_flax_to_transformers_to_flax_gives_the_same_bits(
    kind: str, scan: bool, tmp_path: Path
) -> None:
    drawn = vp.convert.draw_checkpoint(CONFIGS[kind], tmp_path / "drawn.npz", 5, scan=scan)
    with np.load(drawn) as file:
        arrays = dict(file)
    # One plus such a scale loses its bits.
    awkward = np.float32([1e-30, -0.0, 0.1, -0.75, 3.3333333, -1.0000001, 2**-25, -2.7])
    for key in arrays:
        if key.endswith("/scale"):
            arrays[key] = np.broadcast_to(awkward, arrays[key].shape).copy()
    np.savez(tmp_path / "flax.npz", **arrays)
    vp.convert.flax_to_mlx(tmp_path / "flax.npz", tmp_path / "first", CONFIGS[kind])
    mlx_to_transformers(tmp_path / "first", tmp_path / "theirs")
    transformers_to_mlx(tmp_path / "theirs", tmp_path / "second")
    vp.convert.mlx_to_flax(tmp_path / "second", tmp_path / "back.npz")
    with np.load(tmp_path / "back.npz") as file:
        assert set(file.files) == arrays.keys()
        assert all(file[key].tobytes() == array.tobytes() for key, array in arrays.items())


def test_a_trained_scale_is_the_weight_minus_one(tmp_path: Path) -> None:
    drawn = vp.convert.draw_checkpoint(CONFIGS["vision"], tmp_path / "flax.npz")
    vp.convert.flax_to_mlx(drawn, tmp_path / "ours", CONFIGS["vision"])
    weights, metadata = mx.load(str(tmp_path / "ours" / "model.safetensors"), return_metadata=True)
    changed = np.array(weights["spatial_ln.weight"])
    changed[3] = 1.5
    weights["spatial_ln.weight"] = mx.array(changed)
    (tmp_path / "changed").mkdir()
    mx.save_safetensors(str(tmp_path / "changed" / "model.safetensors"), weights, metadata)
    (tmp_path / "changed" / "config.json").write_text(json.dumps(CONFIGS["vision"]))
    vp.convert.mlx_to_flax(tmp_path / "changed", tmp_path / "back.npz")
    with np.load(drawn) as before, np.load(tmp_path / "back.npz") as after:
        expected = before["params/spatial_ln/scale"]
        expected[3] = 0.5
        np.testing.assert_array_equal(after["params/spatial_ln/scale"], expected)


def test_names_on_both_sides() -> None:
    layer = "vision_encoder.spatial_encoder.transformers_stack.x_layers.3"
    for ours, theirs in {
        f"{layer}.self_attention.query.weight": "spatial_layers.3.attention.q_proj.weight",
        f"{layer}.ff_layer.layer_norm.bias": "spatial_layers.3.layernorm_after.bias",
        f"{layer}.layer_norm.bias": "spatial_layers.3.layernorm_before.bias",
    }.items():
        found = leaf(ours, "FactorizedVideoCLIP").key
        assert found == f"video_model.vision_model.{theirs}"
    weight = np.arange(2 * 12, dtype=np.float32).reshape(2, 12)
    projection = leaf("patch_projection.linear.weight", "FactorizedEncoder")
    kernel = projection.rule.to_transformers(weight)
    assert kernel.shape == (2, 3, 1, 2, 2)
    assert kernel[1, 2, 0, 1, 0] == weight[1, (1 * 2 + 0) * 3 + 2]


def test_the_tokenizer_and_the_processor_come_along(tmp_path: Path) -> None:
    model, processor = vp.load(SAVED / "clip")
    assert processor.settings() == dict(
        num_frames=5,
        size=12,
        resize="stretch",
        resample="lanczos",
        fps=None,
        template="{}",
        max_length=12,
    )
    with np.load(SAVED / "clip" / "outputs.npz") as saved:
        assert processor.load_tokenizer().to_int("a red cat. a bag gee") == list(saved["tokens"])
    assert model.takes_text
    transformers_to_mlx(SAVED / "clip", tmp_path / "ours")
    mlx_to_transformers(tmp_path / "ours", tmp_path / "back")
    # The .model file itself goes along, so it comes back as it is.
    transformers_to_mlx(tmp_path / "back", tmp_path / "again")
    for name in (TOKENIZER_FILE, "processor.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "ours" / name).read_bytes()
    path = tmp_path / "back" / "tokenizer.json"
    written = json.loads(path.read_text())
    theirs = json.loads((SAVED / "clip" / "tokenizer.json").read_text())
    for part in ("added_tokens", "normalizer", "pre_tokenizer", "decoder", "model"):
        assert written[part] == theirs[part]
    # Transformers reads tokenizer.json. If it is another than the .model file, it counts.
    written["model"]["vocab"][5][0] = "\u2581dog"
    path.write_text(json.dumps(written))
    changed = vp.load_text_tokenizer(tmp_path / "back")
    assert 5 in changed.to_int("a dog") and 5 not in changed.to_int("a cat")


def test_settings_of_the_video_processor(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    transformers_to_mlx(SAVED / "vision", tmp_path / "ours")
    assert not (tmp_path / "ours" / "processor.json").exists()  # It is as the model implies.
    _, processor = vp.load(tmp_path / "ours")
    processor.resize, processor.fps, processor.size = "crop", 2.5, 24
    processor.save(tmp_path / "ours")
    mlx_to_transformers(tmp_path / "ours", tmp_path / "theirs")
    assert vp.load(tmp_path / "theirs")[1] == processor
    path = tmp_path / "theirs" / "video_preprocessor_config.json"
    found = json.loads(path.read_text())
    for size in ({"height": 24, "width": 36}, {"height": [1], "width": {}}, 13, "x", {}):
        path.write_text(json.dumps(found | {"size": size, "do_normalize": True}))
        caplog.clear()
        assert vp.load(tmp_path / "theirs")[1].size == 12
        assert "is left out; it is no square of patches" in caplog.text
        assert "normalizes pixels or does not scale them to 0 to 1" in caplog.text


def test_a_tokenizer_of_another_kind_stays_behind(
    spm_model_with_bos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = CONFIGS["text"] | dict(vocabulary_size=40)
    drawn = vp.convert.draw_checkpoint(config, tmp_path / "flax.npz")
    vp.convert.flax_to_mlx(drawn, tmp_path / "ours", config, tokenizer=spm_model_with_bos)
    mlx_to_transformers(tmp_path / "ours", tmp_path / "theirs")
    assert "is left out: unlike VideoPrism's, it is no unigram model, or has a begin" in caplog.text
    names = {path.name for path in (tmp_path / "theirs").iterdir()}
    assert names == {"config.json", "model.safetensors"}


def test_a_trained_tokenizer_goes_both_ways(spm_model: Path, tmp_path: Path) -> None:
    config = reference_config("clip_mild") | dict(mlp_dim=96)
    drawn = vp.convert.draw_checkpoint(config, tmp_path / "flax.npz")
    vp.convert.flax_to_mlx(drawn, tmp_path / "ours", config, tokenizer=spm_model)
    mlx_to_transformers(tmp_path / "ours", tmp_path / "theirs")
    transformers_to_mlx(tmp_path / "theirs", tmp_path / "same")
    assert (tmp_path / "same" / TOKENIZER_FILE).read_bytes() == spm_model.read_bytes()
    (tmp_path / "theirs" / "spiece.model").unlink()  # So that tokenizer.json is read.
    transformers_to_mlx(tmp_path / "theirs", tmp_path / "again")
    first, second = map(vp.load_text_tokenizer, (spm_model, tmp_path / "again"))
    for text in ("a red cat runs.", "  caf\u00e9 \ufb01 \u3000 dog<pad>", "zebra"):
        assert first.to_int(text) == second.to_int(text)
    for name in ("pad_token", "eos_token", "unk_token", "bos_token", "vocab_size"):
        assert getattr(first, name) == getattr(second, name)


def test_a_classifier_keeps_the_names_of_its_classes(tmp_path: Path) -> None:
    transformers_to_mlx(SAVED / "classification", tmp_path / "ours")
    found = json.loads((tmp_path / "ours" / "labels.json").read_text())
    assert found["labels"] == ["sits", "drums", "runs"] and found["multi_label"] is True
    mlx_to_transformers(tmp_path / "ours", tmp_path / "back")
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config["id2label"] == {"0": "sits", "1": "drums", "2": "runs"}
    assert config["problem_type"] == "multi_label_classification"


def test_the_pooler_of_a_classifier(tmp_path: Path) -> None:
    """It is as wide as the MLPs in Transformers, and as the model in Flax."""
    trained = vp.load_model(SAVED / "classification")
    assert trained.config["pooler_dim"] == 40
    assert trained.atten_pooler.pooling_attention.query.weight.shape == (40, 16)
    transformers_to_mlx(SAVED / "classification", tmp_path / "trained")
    with pytest.raises(vp.VideoPrismError, match="pooler is 40 wide, as in Transformers, and the"):
        vp.convert.mlx_to_flax(tmp_path / "trained", tmp_path / "back.npz")

    config = CONFIGS["classification"]
    drawn = vp.convert.draw_checkpoint(config, tmp_path / "flax.npz")
    vp.convert.flax_to_mlx(drawn, tmp_path / "ours", config)
    mlx_to_transformers(tmp_path / "ours", tmp_path / "theirs")
    wide = tensors(tmp_path / "theirs")["head.q_proj.weight"]
    assert wide.shape == (32, 8)  # Two heads of 16, of which 12 are zero.
    assert not mx.any(wide.reshape(2, 16, 8)[:, 4:]).item()
    assert "pooler_dim" not in vp.load_model(tmp_path / "theirs").config

    other = config | {"encoder_params": SMALL | {"mlp_dim": 24}}
    drawn = vp.convert.draw_checkpoint(other, tmp_path / "other.npz")
    vp.convert.flax_to_mlx(drawn, tmp_path / "other", other)
    with pytest.raises(vp.VideoPrismError, match="is as wide as mlp_dim, 24, and this one 8"):
        mlx_to_transformers(tmp_path / "other", tmp_path / "no")


def test_it_is_converted_once(own_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="videoprism_mlx"):
        first = vp.load_model(SAVED / "text")
        second = vp.load_model(SAVED / "text")
    assert first.directory == second.directory and first.directory.is_relative_to(own_cache)
    assert caplog.text.count("converting") == 1
    assert "has Transformers' own positions of texts; the official ones are used" in caplog.text
    source = json.loads((first.directory / "config.json").read_text())["source"]
    assert source["format"] == "transformers"
    assert source["directory"] == str(SAVED / "text")


def test_a_model_on_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_cache: Path
) -> None:
    import fnmatch
    import shutil

    import huggingface_hub

    asked: list[list[str]] = []

    def snapshot(repo_id: str, allow_patterns: list[str], **_: Any) -> str:
        asked.append(allow_patterns)
        for path in (SAVED / "clip").iterdir():
            if any(fnmatch.fnmatch(path.name, pattern) for pattern in allow_patterns):
                (tmp_path / repo_id).mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, tmp_path / repo_id)
        return str(tmp_path / repo_id)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *_, **__: None)
    # What the model takes is known before its weights are fetched.
    _, processor = vp.features.processor.check_model("you/theirs")
    assert processor.num_frames == 5 and len(processor.load_tokenizer().to_int("a cat.")) == 3
    assert not list((tmp_path / "you/theirs").glob("*.safetensors"))
    model = vp.load_model("you/theirs", revision="v2")
    assert len(list((tmp_path / "you/theirs").glob("*.safetensors"))) == 3
    source = json.loads((model.directory / "config.json").read_text())["source"]
    assert (source["repository"], source["revision"]) == ("you/theirs", "v2")
    assert not (tmp_path / "you/theirs/outputs.npz").exists()
    out = str(tmp_path / "out")
    assert main(["-q", "convert", "you/theirs", "-o", out, "--revision", "v2"]) == 0
    assert vp.load_model(out).config == model.config
    # An unknown id of Google's is mistyped, unless it says that it is of Transformers.
    assert vp.load_model("google/videoprism-any-hf").config == model.config
    with pytest.raises(vp.VideoPrismError, match="did you mean 'google/videoprism-base-f16r288'"):
        vp.load_model("google/videoprism-base")


def test_half_precision_is_read(tmp_path: Path) -> None:
    for path in (SAVED / "text").iterdir():
        if path.suffix == ".json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    stored = {
        name: array.astype(mx.bfloat16) if array.dtype == mx.float32 else array
        for name, array in tensors(SAVED / "text").items()
    }
    mx.save_safetensors(str(tmp_path / "model.safetensors"), stored, {"format": "pt"})
    model = vp.load_model(tmp_path)
    scale = stored["layernorm.weight"].astype(mx.float32)
    assert mx.array_equal(model.unimodal_ln.weight, 1 + scale).item()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, back = str(tmp_path / "ours"), str(tmp_path / "back")
    assert main(["convert", str(SAVED / "vision"), "-o", ours]) == 0
    assert main(["convert", ours, "-o", back, "--to", "transformers"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"{ours}: FactorizedEncoder, .* parameters, 0.0 MB, .* s", printed[0])
    assert re.fullmatch(rf"{back}: VideoPrismVisionModel, .* MB, .* s", printed[1])
    assert main(["convert", ours, "-o", back, "--to", "transformers", "--overwrite"]) == 0
    assert main(["info", back]) == 0
    assert "FactorizedEncoder" in capsys.readouterr().out
