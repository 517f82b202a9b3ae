"""The small models and the inputs whose activations are saved."""

from typing import Any

import numpy as np

SEED = 2024

# The model and the inputs of examples/check_parity.py.
DEMO_SEED = 7
DEMO = dict(
    model="FactorizedVideoCLIP",
    patch_size=18,
    pos_emb_shape=[8, 4, 4],
    model_dim=48,
    num_spatial_layers=2,
    num_temporal_layers=1,
    num_auxiliary_layers=1,
    num_unimodal_layers=2,
    num_heads=4,
    mlp_dim=128,
    vocabulary_size=100,
    atten_logit_cap=50.0,
)


def demo_clip(frames: int = 8, size: int = 72) -> np.ndarray:
    """An orange disc crossing a blue sky: (1, T, H, W, 3) in [0, 1]."""
    rows, columns = np.mgrid[:size, :size] / size
    clip = np.empty((1, frames, size, size, 3), np.float32)
    for frame in range(frames):
        sky = np.stack([0.2 * rows, 0.4 + 0.2 * rows, 0.9 - 0.3 * rows], axis=-1)
        inside = (columns - (frame + 0.5) / frames) ** 2 + (rows - 0.5) ** 2 < 0.04
        clip[0, frame] = np.where(inside[..., None], [1.0, 0.6, 0.1], sky)
    return clip


def demo_text() -> dict[str, np.ndarray]:
    """Two texts of token ids, the first one padded: (2, 6) each."""
    ids = np.array([[5, 17, 42, 0, 0, 0], [8, 99, 3, 61, 12, 2]], np.int32)
    return dict(text_token_ids=ids, text_paddings=(ids == 0).astype(np.float32))


ENCODER = dict(
    model="FactorizedEncoder",
    patch_size=6,
    pos_emb_shape=[4, 3, 3],
    model_dim=24,
    num_spatial_layers=2,
    num_temporal_layers=2,
    num_heads=4,
    mlp_dim=40,
    atten_logit_cap=50.0,
)
CLIP = ENCODER | dict(
    model="FactorizedVideoCLIP",
    num_temporal_layers=1,
    num_auxiliary_layers=2,
    vocabulary_size=64,
    num_unimodal_layers=2,
)
TEXT = dict(
    model="TextEncoder",
    vocabulary_size=64,
    num_class_tokens=1,
    model_dim=24,
    num_layers=2,
    mlp_dim=40,
    num_heads=4,
    atten_logit_cap=50.0,
)
CLASSIFIER = dict(
    model="FactorizedVideoClassifier",
    encoder_params={key: value for key, value in ENCODER.items() if key != "model"},
    num_classes=7,
)
MODELS = {
    "encoder": ENCODER,
    "encoder_primer_hybrid": ENCODER | dict(norm_policy="primer_hybrid"),
    "encoder_post": ENCODER | dict(norm_policy="post"),
    "encoder_post_skip": ENCODER | dict(norm_policy="post_skip"),
    "encoder_without_cap": ENCODER | dict(atten_logit_cap=0.0),
    "encoder_without_layers": ENCODER | dict(num_spatial_layers=0, num_temporal_layers=0),
    "encoder_oblong_table": ENCODER | dict(pos_emb_shape=[5, 4, 2], num_heads=2, patch_size=4),
    "clip": CLIP,
    "clip_primer_hybrid": CLIP | dict(norm_policy="primer_hybrid", num_auxiliary_layers=1),
    "clip_post": CLIP | dict(norm_policy="post", num_auxiliary_layers=0),
    "clip_post_skip": CLIP | dict(norm_policy="post_skip", num_auxiliary_layers=0),
    "clip_not_causal": CLIP | dict(enable_causal_atten=False, atten_logit_cap=0.0),
    "classifier": CLASSIFIER,
    "text": TEXT | dict(num_class_tokens=2, enable_per_dim_scale=True),
    "text_odd_width": TEXT | dict(model_dim=21, num_heads=3, num_class_tokens=0),
    "encoder_mild": ENCODER,
    "clip_mild": CLIP,
    "classifier_mild": CLASSIFIER,
    "demo": DEMO,
}
NO_VIDEO_LAYERS = dict(num_spatial_layers=0, num_temporal_layers=0)
# Models with empty stacks of layers, whose parameters are in no_layers.json.
NO_LAYERS = (
    ENCODER | NO_VIDEO_LAYERS,
    CLASSIFIER | dict(encoder_params=CLASSIFIER["encoder_params"] | NO_VIDEO_LAYERS),
    CLIP | NO_VIDEO_LAYERS | dict(num_auxiliary_layers=0, num_unimodal_layers=0),
    CLIP | dict(num_spatial_layers=0, num_unimodal_layers=0, norm_policy="primer_hybrid"),
    TEXT | dict(num_layers=0, enable_per_dim_scale=True),
)
SEEDS = {"demo": DEMO_SEED}
# Where logits reach the cap, rounding errors grow: with parameters in bfloat16, some outputs differ
# by more than half precision explains. Half precision and gradients are tested on these models.
GAINS = {"encoder_mild": 1.0, "clip_mild": 1.0, "classifier_mild": 1.0}


def video(batch: int, frames: int, size: int) -> np.ndarray:
    """Random frames (B, T, H, W, 3)."""
    random = np.random.RandomState(SEED + frames * 100 + size)
    return random.uniform(size=(batch, frames, size, size, 3)).astype(np.float32)


def text(padded: list[list[int]], vocabulary: int = 64) -> dict[str, np.ndarray]:
    """Random ids (B, L) with the given paddings, 1 where padded."""
    paddings = np.array(padded, np.float32)
    ids = np.random.RandomState(SEED).randint(0, vocabulary, paddings.shape).astype(np.int32)
    return dict(text_token_ids=ids, text_paddings=paddings)


def lone_text(padded: list[list[int]]) -> dict[str, np.ndarray]:
    """The same, with the keywords of the text encoder."""
    return dict(zip(("inputs", "paddings"), text(padded).values(), strict=True))


ALL = dict(return_intermediate=True)
PADDED_FRAMES = np.array([[0, 0, 0, 1], [1, 0, 1, 0], [1, 1, 1, 1]], np.float32)
# Padding at the end, in the middle, at the start, everywhere and nowhere.
PADDED_TEXT = [
    [0, 0, 0, 1, 1, 1],
    [0, 1, 0, 0, 1, 0],
    [1, 1, 0, 0, 0, 0],
    [1, 1, 1, 1, 1, 1],
    [0, 0, 0, 0, 0, 0],
]

CASES: dict[str, dict[str, dict[str, Any]]] = {
    "encoder": {
        "plain": dict(inputs=video(2, 4, 18), **ALL),
        "smaller": dict(inputs=video(1, 2, 12), **ALL),
        "larger": dict(inputs=video(1, 7, 30), **ALL),
        "one_frame_one_patch": dict(inputs=video(2, 1, 6)),
        "padded_frames": dict(inputs=video(3, 4, 18), frame_paddings=PADDED_FRAMES, **ALL),
        "padded_smaller": dict(
            inputs=video(2, 3, 12), frame_paddings=np.array([[0, 1, 0], [1, 1, 1]], bool)
        ),
    },
    "encoder_primer_hybrid": {
        "padded_frames": dict(inputs=video(3, 4, 18), frame_paddings=PADDED_FRAMES)
    },
    "encoder_post": {"padded_frames": dict(inputs=video(3, 4, 18), frame_paddings=PADDED_FRAMES)},
    "encoder_post_skip": {
        "padded_frames": dict(inputs=video(3, 4, 18), frame_paddings=PADDED_FRAMES)
    },
    "encoder_without_cap": {"plain": dict(inputs=video(1, 4, 18))},
    "encoder_without_layers": {
        "plain": dict(inputs=video(2, 4, 18), frame_paddings=PADDED_FRAMES[:2], **ALL)
    },
    "encoder_oblong_table": {"plain": dict(inputs=video(1, 3, 12), **ALL)},
    "clip": {
        "plain": dict(inputs=video(2, 4, 18), **text(PADDED_TEXT), **ALL),
        "padded_not_normalized": dict(
            inputs=video(3, 4, 18),
            frame_paddings=PADDED_FRAMES,
            **text([[1] * 6, [0] * 6]),
            normalize=False,
            return_intermediate=np.array(["frame_embeddings", "spatial_features"]),
        ),
        "video_alone": dict(
            inputs=video(1, 6, 12), return_intermediate=np.array(["spatiotemporal_features"])
        ),
        "long_text_alone": text([[0] * 90 + [1] * 10, [1] * 3 + [0] * 97]),
        "short_text_alone": text([[0], [1]]),
    },
    "clip_primer_hybrid": {"plain": dict(inputs=video(1, 4, 18), **text(PADDED_TEXT))},
    "clip_post": {"plain": dict(inputs=video(1, 2, 12), **text(PADDED_TEXT), **ALL)},
    "clip_post_skip": {"plain": dict(inputs=video(1, 2, 12), **text(PADDED_TEXT))},
    "clip_not_causal": {"plain": dict(inputs=video(1, 2, 12), **text(PADDED_TEXT))},
    "classifier": {
        "plain": dict(inputs=video(2, 4, 18), **ALL),
        "padded_frames": dict(inputs=video(3, 4, 18), frame_paddings=PADDED_FRAMES),
    },
    "text": {"plain": lone_text(PADDED_TEXT)},
    "text_odd_width": {"plain": lone_text(PADDED_TEXT)},
    "encoder_mild": {"plain": dict(inputs=video(2, 4, 18), **ALL)},
    "clip_mild": {"plain": dict(inputs=video(2, 4, 18), **text(PADDED_TEXT), **ALL)},
    "classifier_mild": {"plain": dict(inputs=video(2, 4, 18), **ALL)},
    "demo": {"plain": dict(inputs=demo_clip(), **demo_text(), **ALL)},
}

# For these, the gradients with respect to every parameter are saved as well.
DIFFERENTIATED = ("encoder_mild", "clip_mild", "classifier_mild", "text")
