"""Models of Transformers that cannot be loaded, or models that cannot go there: one clear line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from conftest import REFERENCE, reference_config

import videoprism_mlx as vp
from videoprism_mlx.cli import main
from videoprism_mlx.convert import mlx_to_transformers
from videoprism_mlx.convert.scales import read_scales

SAVED = REFERENCE / "transformers"
INDEX = "model.safetensors.index.json"

Change = Callable[[Path], object]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDEOPRISM_MLX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def copied(kind: str, folder: Path) -> Path:
    shutil.copytree(SAVED / kind, folder / kind)
    return folder / kind


def configured(key: str, value: Any, part: str | None = None) -> Change:
    """Sets a key of config.json, or of a part of it."""

    def change(model: Path) -> None:
        found = json.loads((model / "config.json").read_text())
        (found if part is None else found[part])[key] = value
        (model / "config.json").write_text(json.dumps(found))

    return change


def indexed(name: str, file: Any) -> Change:
    """Says in the index that a tensor is in that file."""

    def change(model: Path) -> None:
        found = json.loads((model / INDEX).read_text())
        found["weight_map"][name] = file
        (model / INDEX).write_text(json.dumps(found))

    return change


def stored(change_tensors: Callable[[dict[str, mx.array]], object]) -> Change:
    """Changes the tensors of a model in one file."""

    def change(model: Path) -> None:
        path = model / "model.safetensors"
        tensors = {name: mx.array(one) for name, one in mx.load(str(path)).items()}
        change_tensors(tensors)
        mx.save_safetensors(str(path), tensors, {"format": "pt"})

    return change


def without(name: str) -> Change:
    return lambda model: (model / name).unlink()


TABLE = "embeddings.position_embedding"
SHARD = "model-00002-of-00003.safetensors"

BAD: list[tuple[str, Change, str]] = [
    ("clip", without(SHARD), f"lacks 1 of the 3 files of its weights, such as {SHARD}"),
    ("clip", without(INDEX), f"has neither model.safetensors nor {INDEX}: load the model in"),
    ("clip", indexed("x", SHARD), f"{SHARD} and {INDEX} do not fit, 1 tensor wrong: x is only in"),
    ("clip", indexed("x", "../y.safetensors"), "x is in '../y.safetensors'; expected the name of"),
    ("clip", indexed("x", 3), "x is in 3; expected the name of a safetensors file beside it"),
    ("clip", lambda m: (m / INDEX).write_text("{}"), "has no weight_map; download it again"),
    ("clip", lambda m: (m / SHARD).write_bytes(b"{"), "is damaged or not a safetensors file"),
    (
        "clip",
        configured("hidden_act", "gelu", "text_config"),
        "hidden_act is 'gelu'; expect",
    ),
    ("clip", configured("hidden_size", 8, "text_config"), "hidden_size is 16 for videos and 8 for"),
    (
        "clip",
        configured("intermediate_size", 32, "vision_config"),
        "intermediate_size is 32 in vision_config; expected four times hidden_size, 64",
    ),
    ("clip", configured("apply_l2norm", False, "vision_config"), "embeddings here have length one"),
    ("clip", configured("text_config", 3), "text_config is 3; expected an object"),
    (
        "text",
        configured("model_type", "bert"),
        "another architecture: \"model_type\" is 'bert'",
    ),
    ("text", configured("model_type", [1]), 'is of another architecture: "model_type" is [1]'),
    (
        "vision",
        configured("architectures", ["VideoPrismVideoModel"]),
        "VideoPrismVideoModel is not a model that is known here; expected one of VideoPrismVision",
    ),
    (
        "vision",
        configured("rope_theta", 1e4),
        "setting 'rope_theta' is not known",
    ),
    (
        "vision",
        configured("tubelet_size", [2, 4, 4]),
        "tubelet_size is [2, 4, 4]; expected",
    ),
    ("vision", configured("image_size", 13), "image_size is 13; expected a multiple of 4, or two"),
    (
        "vision",
        configured("attn_logit_softcapping", 0),
        "softcapping is 0; expected a number above",
    ),
    ("vision", configured("layer_norm_eps", 1e-5), "layer_norm_eps is 1e-05; expected 1e-06"),
    (
        "vision",
        configured("hidden_size", None),
        "hidden_size is None; expected a whole",
    ),
    ("vision", configured("num_attention_heads", 3), "a width of 16 cannot be split over 3 heads"),
    ("vision", configured("num_spatial_layers", 3), "16 parameters are wrong: missing: spatial_l"),
    (
        "vision",
        configured("num_temporal_layers", 0),
        "16 parameters are wrong: not of this",
    ),
    ("classification", configured("id2label", {"0": "a"}), "2 parameters are wrong: misshapen: cl"),
    ("classification", configured("id2label", 3), "id2label is 3; expected an object"),
    (
        "vision",
        stored(lambda t: t.update({"layernorm1.bias": mx.full((16,), mx.nan)})),
        "layernorm1.bias holds NaN or infinite values",
    ),
    (
        "vision",
        stored(lambda t: t.update({"layernorm1.bias": mx.zeros(16, mx.int64)})),
        "layernorm1.bias is of type I64; expected one of F32, BF16, F16",
    ),
    (
        "text",
        stored(lambda t: t.update({TABLE: mx.zeros((12, 16))})),
        f"{TABLE} is not the table of sinusoids that VideoPrism has",
    ),
    ("text", configured("max_position_embeddings", 9), "2 parameters are wrong: misshapen: emb"),
    (
        "text",
        lambda m: (m / "tokenizer.json").write_text('{"model": {"type": "BPE"}}'),
        "tokenizer.json is not a unigram tokenizer, which VideoPrism has (its type is BPE)",
    ),
    (
        "text",
        lambda m: (m / "tokenizer.json").write_text('{"model": {"type": "Unigram"}}'),
        "tokenizer.json is not a unigram tokenizer, which VideoPrism has",
    ),
]


@pytest.mark.parametrize(("kind", "change", "message"), BAD, ids=[bad[2][:40] for bad in BAD])
def test_one_clear_line(
    kind: str,
    change: Change,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    own_cache: Path,
) -> None:
    model = copied(kind, tmp_path)
    change(model)
    assert main(["-q", "convert", str(model), "-o", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0] and len(lines[0]) < 600
    assert str(model) in lines[0]
    with pytest.raises(vp.VideoPrismError) as raised:
        vp.load_model(model)
    assert message in str(raised.value)
    assert not (tmp_path / "out").exists() and not list(own_cache.glob("models/*/*"))


def test_names_of_classes_are_checked(tmp_path: Path) -> None:
    model = copied("classification", tmp_path)
    configured("id2label", {"0": "sits", "1": "sits", "2": "runs"})(model)
    with pytest.raises(vp.VideoPrismError, match=r"config\.json: classes 0 and 1 are both called"):
        vp.load_model(model)


def test_what_is_no_model_of_transformers(tmp_path: Path) -> None:
    vp.convert.transformers_to_mlx(SAVED / "vision", tmp_path / "ours")
    for folder in ("ours", "nothing"):
        with pytest.raises(vp.VideoPrismError, match=f"{folder} is not a model of Transformers"):
            vp.convert.transformers_to_mlx(tmp_path / folder, tmp_path / "again")


def test_damaged_scales_are_told(tmp_path: Path) -> None:
    vp.convert.transformers_to_mlx(SAVED / "vision", tmp_path / "ours")
    path = tmp_path / "ours" / "model.safetensors"
    for text in ("[]", '{"spatial_ln.weight": "*"}', '{"spatial_ln.weight": "QUI="}', "{"):
        mx.save_safetensors(str(path), dict(mx.load(str(path))), {"layer_norm_scales": text})
        with pytest.raises(vp.VideoPrismError, match="layer_norm_scales in its metadata is"):
            read_scales(path)


def test_a_pytorch_checkpoint_is_not_read(tmp_path: Path) -> None:
    model = copied("vision", tmp_path)
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(
        vp.VideoPrismError, match=r"; pytorch_model\.bin is not read: load the model in Transf"
    ):
        vp.load_model(model)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("encoder_post", {}, "has no VideoPrism with norm_policy = 'post'; expected pre"),
        ("text", {}, "has no VideoPrism with"),
        (
            "encoder_without_cap",
            {"norm_policy": "pre"},
            "has no VideoPrism without a cap of logits",
        ),
        ("clip_not_causal", {"mlp_dim": 96}, "with enable_causal_atten = False; expected True"),
        ("clip", {}, "has no VideoPrism with mlp_dim = "),
    ],
)
def test_what_transformers_has_not(
    name: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    config = reference_config(name) | change
    drawn = vp.convert.draw_checkpoint(config, tmp_path / "flax.npz")
    vp.convert.flax_to_mlx(drawn, tmp_path / "ours", config)
    with pytest.raises(vp.VideoPrismError, match="ours cannot go to Transformers: ") as raised:
        mlx_to_transformers(tmp_path / "ours", tmp_path / "theirs")
    assert message in str(raised.value)
    assert not (tmp_path / "theirs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["flax.npz", "--to", "transformers", "-o", "new"], "flax.npz is none; convert it to one"),
        (["theirs", "--to", "flax", "-o", "new"], "theirs is none; convert it to one first"),
        (["theirs", "-o", "new.npz"], "from which a model directory is written; new.npz would be"),
        (["theirs", "-o", "new", "--config", "x"], "--config has no effect for a model of Transf"),
        (["theirs", "-o", "new", "--revision", "x"], "--revision has no effect for a model of"),
        (
            ["ours", "-o", "new", "--to", "transformers", "--dtype", "float16"],
            "--dtype has no effect when a model is converted to Transformers",
        ),
        (["ours", "-o", "theirs", "--to", "transformers"], "already exists"),
        (
            ["ours", "-o", "full", "--to", "transformers", "--overwrite"],
            "something other than a",
        ),
    ],
)
def test_mistakes_of_the_command(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SAVED / "vision", "theirs")
    vp.convert.transformers_to_mlx("theirs", "ours")
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert main(["-q", "convert", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_missing_shard_is_told_before_it_is_converted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = copied("clip", tmp_path)
    min(model.glob("*.safetensors")).unlink()
    caplog.set_level("INFO", logger="videoprism_mlx")
    with pytest.raises(vp.VideoPrismError, match="lacks 1 of the 3 files of its weights"):
        vp.load_model(model)
    assert not caplog.records
