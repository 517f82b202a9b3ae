"""Converts a Flax checkpoint, encodes a clip and some text, and says how close to Flax it is.

Checkpoint and clip are drawn here, so nothing is downloaded. What the official model makes of
them was saved before, and is what the result is compared with.
"""

import tempfile
from pathlib import Path

import numpy as np

import videoprism_mlx as vp
from videoprism_mlx.convert.verify import OUTPUT

ACTIVATIONS = Path(__file__).parent.parent / "tests/reference/demo/plain.npz"
SEED = 7
CONFIG = dict(
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


def draw_clip(frames: int = 8, size: int = 72) -> np.ndarray:
    """An orange disc crossing a blue sky: (1, T, H, W, 3) in [0, 1]."""
    rows, columns = np.mgrid[:size, :size] / size
    clip = np.empty((1, frames, size, size, 3), np.float32)
    for frame in range(frames):
        sky = np.stack([0.2 * rows, 0.4 + 0.2 * rows, 0.9 - 0.3 * rows], axis=-1)
        inside = (columns - (frame + 0.5) / frames) ** 2 + (rows - 0.5) ** 2 < 0.04
        clip[0, frame] = np.where(inside[..., None], [1.0, 0.6, 0.1], sky)
    return clip


def draw_text() -> dict[str, np.ndarray]:
    """Two texts of token ids, the first one padded: (2, 6) each."""
    ids = np.array([[5, 17, 42, 0, 0, 0], [8, 99, 3, 61, 12, 2]], np.int32)
    return dict(text_token_ids=ids, text_paddings=(ids == 0).astype(np.float32))


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = vp.convert.draw_checkpoint(CONFIG, f"{directory}/flax.npz", SEED)
        result = vp.convert.flax_to_mlx(checkpoint, f"{directory}/model", CONFIG)
        model = vp.load_model(result.output)
        print(f"converted    {result.model}, {result.parameters:,} parameters")

        clip, text = draw_clip(), draw_text()
        video_embeddings, text_embeddings, outputs = model(clip, **text, return_intermediate=True)
        print(f"clip         {clip.shape}")
        print(f"features     {outputs['spatiotemporal_features'].shape}")
        print(f"embeddings   video {video_embeddings.shape}, text {text_embeddings.shape}")
        similarity = (video_embeddings @ text_embeddings.T)[0].tolist()
        print(f"similarity   {', '.join(f'{cosine:.3f}' for cosine in similarity)}")

        compared = vp.convert.verify(model, ACTIVATIONS)
        worst = max((each for each in compared if each.path.startswith(OUTPUT)), key=lambda e: e[1])
        print(
            f"parity       {worst.distance:.1e} from the official model in float64, at most; "
            f"Flax in float32 is at {worst.flax_distance:.1e}"
        )
        if not all(each.agrees for each in compared):
            raise SystemExit("that is further than rounding explains")


if __name__ == "__main__":
    main()
