"""Saves small models of Transformers, drawn from a seed, and what Transformers computes from them.

torch and transformers must be installed:

    python tests/reference/generate_transformers.py

Each folder of tests/reference/transformers/ is as save_pretrained writes it; the video-text model
is in shards. outputs.npz beside it holds the inputs, the outputs, and as `official/…` the outputs
with the official table of text positions in the place of Transformers' own.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from videoprism_mlx.encoders import PositionalEmbedding

HERE = Path(__file__).parent / "transformers"

COMMON = dict(hidden_size=16, num_attention_heads=2, intermediate_size=64)
VISION = COMMON | dict(
    image_size=12,
    num_frames=3,
    num_spatial_layers=2,
    num_temporal_layers=1,
    num_auxiliary_layers=1,
    tubelet_size=[1, 4, 4],
)
TEXT = COMMON | dict(vocab_size=30, num_hidden_layers=2, max_position_embeddings=12)
PIECES = ["<pad>", "</s>", "<unk>", "\u2581", "\u2581a", "\u2581cat", "\u2581red", ".", *"abcdefgr"]


def models() -> dict[str, Any]:
    """A model of each kind."""
    vision = transformers.VideoPrismVisionConfig(**VISION)
    labels = {0: "sits", 1: "drums", 2: "runs"}
    # Its pooler is 40 wide, which is not the official width.
    named = transformers.VideoPrismVisionConfig(
        **VISION | dict(intermediate_size=40),
        id2label=labels,
        problem_type="multi_label_classification",
    )
    text = transformers.VideoPrismTextConfig(**TEXT | dict(intermediate_size=40))
    both = transformers.VideoPrismConfig(vision_config=VISION, text_config=TEXT)
    return {
        "vision": transformers.VideoPrismVisionModel(vision),
        "classification": transformers.VideoPrismForVideoClassification(named),
        "text": transformers.VideoPrismTextModel(text),
        "clip": transformers.VideoPrismClipModel(both),
    }


def draw(model: Any, seed: int) -> None:
    """Gives every parameter random values, so that no mistake in a layout can hide."""
    random = np.random.default_rng(seed)
    for name, parameter in sorted(model.named_parameters()):
        fan_in = np.prod(parameter.shape[1:]) if parameter.ndim in (2, 5) else 25
        values = random.uniform(-1, 1, parameter.shape) * (3 / fan_in) ** 0.5
        if name.endswith("pooling_attention_query"):
            values *= 5
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(values))


def inputs(name: str) -> dict[str, np.ndarray]:
    """The arguments of a model: clips (2, 3, 3, 12, 12), and texts of 12 and of 5 tokens."""
    random = np.random.default_rng(1)
    given: dict[str, np.ndarray] = {}
    if name != "text":
        pixels = random.integers(0, 17, (2, 3, 3, 12, 12)) / 16  # A few values, for a small file.
        given["pixel_values_videos"] = pixels.astype(np.float32)
    if name in ("text", "clip"):
        given["input_ids"] = random.integers(3, 30, (2, 12))
        given["attention_mask"] = (np.arange(12) < [[12], [5]]).astype(np.float32)
    return given


def outputs(name: str, model: Any, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a model computes, by name."""
    names = {"clip": ("video_embeds", "text_embeds"), "classification": ("logits",)}
    with torch.inference_mode():
        found = model(**{key: torch.from_numpy(array) for key, array in given.items()})
    return {key: found[key].numpy() for key in names.get(name, ("last_hidden_state",))}


def main() -> None:
    shutil.rmtree(HERE, ignore_errors=True)
    for seed, (name, model) in enumerate(models().items()):
        draw(model.eval(), seed)
        folder = HERE / name
        model.save_pretrained(folder, max_shard_size="40KB" if name == "clip" else "1GB")
        given = inputs(name)
        saved = given | outputs(name, model, given)
        if name in ("text", "clip"):
            pieces = [(piece, -float(i)) for i, piece in enumerate(PIECES)]
            tokenizer = transformers.VideoPrismTokenizer(
                pieces, extra_ids=0, model_max_length=TEXT["max_position_embeddings"]
            )
            ids = tokenizer("a red cat. a bag gee")["input_ids"]
            saved["tokens"] = np.array(ids)
            tokenizer.save_pretrained(folder)
            part = model if name == "text" else model.text_model
            width = COMMON["hidden_size"]
            table = PositionalEmbedding(width)(TEXT["max_position_embeddings"])[0]
            part.embeddings.position_embedding.copy_(torch.from_numpy(np.array(table)))
            again = outputs(name, model, given)
            saved |= {f"official/{key}": array for key, array in again.items()}
        if name == "clip":
            video = transformers.LlavaOnevisionVideoProcessor(
                size={"height": 12, "width": 12}, do_normalize=False, resample=1, num_frames=5
            )
            transformers.VideoPrismProcessor(video, tokenizer).save_pretrained(folder)
        np.savez_compressed(folder / "outputs.npz", **saved)
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{name}: {size / 1e3:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
