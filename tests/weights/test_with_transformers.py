"""The proof with Transformers itself, where it is installed: the same bits, and the same outputs.

Without it, test_transformers.py compares with outputs that were saved.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import videoprism_mlx as vp
from videoprism_mlx.convert import mlx_to_transformers, transformers_to_mlx
from videoprism_mlx.convert.transformers.config import CLASSES
from videoprism_mlx.convert.verify import distance
from videoprism_mlx.models import DEMO_MODEL, SHIPPED, get_config

SMALL = dict(
    patch_size=6,
    pos_emb_shape=(4, 3, 3),
    model_dim=24,
    num_spatial_layers=2,
    num_temporal_layers=1,
    num_heads=4,
    mlp_dim=96,
    atten_logit_cap=50.0,
)
TEXT = dict(model_dim=24, num_heads=4, atten_logit_cap=50.0, vocabulary_size=40)
CONFIGS: dict[str, dict[str, Any]] = {
    "vision": dict(model="FactorizedEncoder", **SMALL),
    "other_cap": dict(model="FactorizedEncoder", **SMALL | dict(atten_logit_cap=3.0)),
    "classification": dict(model="FactorizedVideoClassifier", encoder_params=SMALL, num_classes=5),
    "text": dict(model="TextEncoder", **TEXT, num_class_tokens=1, num_layers=2, mlp_dim=40),
    "clip": dict(model="FactorizedVideoCLIP", **SMALL | TEXT, num_unimodal_layers=2),
    "auxiliary": dict(
        model="FactorizedVideoCLIP", **SMALL | TEXT, num_unimodal_layers=1, num_auxiliary_layers=2
    ),
}

# Both sides round. Where attention reaches its cap, float32 is less exact.
ROUNDING = {1.0: 2e-6, 3.0: 1e-5}


@pytest.fixture(scope="module")
def library() -> Iterator[Any]:
    """Transformers, quiet."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers", minversion="5.14")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield transformers


def written(config: dict[str, Any], folder: Path, gain: float = 1.0) -> Path:
    """The directory for Transformers of a drawn model. Its Flax checkpoint is flax.npz."""
    drawn = vp.convert.draw_checkpoint(config, folder / "flax.npz", 3, gain=gain)
    vp.convert.flax_to_mlx(drawn, folder / "ours", config)
    mlx_to_transformers(folder / "ours", folder / "theirs")
    return folder / "theirs"


def loaded(library: Any, directory: Path) -> Any:
    """A model that Transformers has loaded, without a missing or an unexpected parameter."""
    named = json.loads((directory / "config.json").read_text())["architectures"][0]
    assert named in CLASSES
    model, info = getattr(library, named).from_pretrained(directory, output_loading_info=True)
    assert not any(info.values()), info
    return model.eval()


def compared(library: Any, model: Any, ours: Any, frames: int, size: int) -> dict[str, float]:
    """How far the outputs of a model of Transformers are from ours, for the same clips and texts.

    Padding in a text does not count: what is computed there differs, and nobody uses it.
    """
    import torch

    random = np.random.default_rng(0)
    clips = random.random((1, frames, size, size, 3), np.float32)
    ids = random.integers(3, 40, (2, 64)).astype(np.int32)
    mask = (np.arange(64) < [[9], [64]]).astype(np.float32)
    videos = {"pixel_values_videos": torch.from_numpy(np.moveaxis(clips, -1, 2).copy())}
    texts = {"input_ids": torch.from_numpy(ids).long(), "attention_mask": torch.from_numpy(mask)}
    with torch.inference_mode():
        if ours.towers == ("video", "text"):
            found = model(**videos, **texts)
            pair = ours(clips, ids, 1 - mask)
            theirs = (found.video_embeds, found.text_embeds)
            return {
                name: distance(np.array(one), other.numpy())
                for name, one, other in zip(("video", "text"), pair, theirs, strict=False)
            }
        if ours.towers == ("text",):
            seen = np.concatenate([mask, np.ones((2, 1))], -1)[..., None]
            features = model(**texts).last_hidden_state.numpy()
            return {"text": distance(np.array(ours(ids, 1 - mask)) * seen, features * seen)}
        found = model(**videos)
    output = found.logits if "logits" in found else found.last_hidden_state
    return {"video": distance(np.array(ours(clips)[0]), output.numpy())}


@pytest.mark.parametrize("gain", ROUNDING)
@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_computes_the_same(
    name: str, gain: float, library: Any, tmp_path: Path
) -> None:
    model = loaded(library, written(CONFIGS[name], tmp_path, gain))
    apart = compared(library, model, vp.load_model(tmp_path / "ours"), 4, 18)
    assert max(apart.values()) < ROUNDING[gain], apart


@pytest.mark.parametrize("name", CONFIGS)
def test_through_transformers_with_the_same_bits(name: str, library: Any, tmp_path: Path) -> None:
    """Flax, ours, Transformers that loads and saves it in shards, ours, Flax."""
    model = loaded(library, written(CONFIGS[name], tmp_path))
    model.save_pretrained(tmp_path / "saved", max_shard_size="20KB")
    assert (tmp_path / "saved" / "model.safetensors.index.json").is_file()
    transformers_to_mlx(tmp_path / "saved", tmp_path / "again")
    vp.convert.mlx_to_flax(tmp_path / "again", tmp_path / "back.npz")
    with np.load(tmp_path / "flax.npz") as before, np.load(tmp_path / "back.npz") as after:
        assert set(before.files) == set(after.files)
        assert all(before[key].tobytes() == after[key].tobytes() for key in before.files)
    weights = [(tmp_path / one / "model.safetensors").read_bytes() for one in ("ours", "again")]
    assert weights[0] == weights[1]


def test_what_transformers_draws_loads_here(library: Any, tmp_path: Path) -> None:
    """Its own models, with a pooler of its own width and its own positions of texts."""
    common = dict(hidden_size=16, num_attention_heads=2, intermediate_size=64)
    vision = common | dict(image_size=8, num_frames=2, tubelet_size=[1, 4, 4], num_labels=3)
    vision |= dict(num_spatial_layers=1, num_temporal_layers=1, num_auxiliary_layers=1)
    settings = library.VideoPrismVisionConfig(**vision | dict(intermediate_size=20))
    model = library.VideoPrismForVideoClassification(settings).eval()
    model.save_pretrained(tmp_path / "classifier")
    ours = vp.load_model(tmp_path / "classifier")
    assert ours.config["pooler_dim"] == 20
    assert compared(library, model, ours, 2, 8)["video"] < ROUNDING[1.0]

    text = common | dict(vocab_size=40, num_hidden_layers=1)
    both = library.VideoPrismConfig(vision_config=vision, text_config=text)
    model = library.VideoPrismClipModel(both).eval()
    model.save_pretrained(tmp_path / "clip")
    ours = vp.load_model(tmp_path / "clip")
    assert compared(library, model, ours, 2, 8)["video"] < ROUNDING[1.0]
    # Its table of text positions is not the official one. With that, the texts agree as well.
    vp.convert.transformers_to_mlx(tmp_path / "clip", tmp_path / "ours")
    mlx_to_transformers(tmp_path / "ours", tmp_path / "official")
    model = loaded(library, tmp_path / "official")
    assert max(compared(library, model, ours, 2, 8).values()) < ROUNDING[1.0]


def test_its_processor_and_tokenizer_load(library: Any, tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    mlx_to_transformers(SHIPPED[DEMO_MODEL], tmp_path / "theirs")
    processor = library.AutoProcessor.from_pretrained(tmp_path / "theirs")
    ours = vp.load_text_tokenizer(DEMO_MODEL)
    texts = ["a red square moves left.", "two circles zzz.", "\u00dcn  known"]
    clip = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3)).astype(np.uint8)
    batch = processor(
        text=texts, videos=[clip], return_tensors="pt", padding="max_length", truncation=True
    )
    ids, paddings = vp.tokenize_texts(ours, texts, canonicalize=False)
    np.testing.assert_array_equal(batch["input_ids"].numpy(), ids)
    np.testing.assert_array_equal(batch["attention_mask"].numpy(), 1 - paddings)
    pixels = batch["pixel_values_videos"].numpy()[0]
    np.testing.assert_allclose(np.moveaxis(pixels, 1, -1), clip / 255, atol=1e-6)
    processor.save_pretrained(tmp_path / "saved")
    loaded(library, tmp_path / "theirs").save_pretrained(tmp_path / "saved")
    transformers_to_mlx(tmp_path / "saved", tmp_path / "again")
    again = vp.load_text_tokenizer(tmp_path / "again")
    assert again.to_int(texts) == ours.to_int(texts)
    assert not (tmp_path / "again" / "processor.json").exists()  # It is as the model implies.


@pytest.mark.slow
@pytest.mark.parametrize("name", ["videoprism_lvt_public_v1_base", "videoprism_vc_v1_base"])
def test_a_full_size_model(name: str, library: Any, tmp_path: Path) -> None:
    config = get_config(name)
    model = loaded(library, written(config, tmp_path))
    apart = compared(library, model, vp.load_model(tmp_path / "ours"), 16, 288)
    assert max(apart.values()) < ROUNDING[1.0], apart
    model.save_pretrained(tmp_path / "saved", max_shard_size="300MB")
    transformers_to_mlx(tmp_path / "saved", tmp_path / "again")
    weights = [(tmp_path / one / "model.safetensors").read_bytes() for one in ("ours", "again")]
    assert weights[0] == weights[1]
