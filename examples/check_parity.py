"""Converts a Flax checkpoint, encodes a clip and two texts, and compares all outputs with Flax.

Nothing is downloaded: the checkpoint is drawn here with random weights. The clip, the texts, and
what the official model makes of them are in a file that was saved with the official model.
"""

import tempfile
from pathlib import Path

import videoprism_mlx as vp
from videoprism_mlx.convert.verify import OUTPUT, read_activations, saved_inputs

ACTIVATIONS = Path(__file__).parent.parent / "tests/reference/demo/plain.npz"

# What the official model was made with when the file was saved.
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


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = vp.convert.draw_checkpoint(CONFIG, f"{directory}/flax.npz", SEED)
        result = vp.convert.flax_to_mlx(checkpoint, f"{directory}/model", CONFIG)
        model = vp.load_model(result.output)
        print(f"converted    {result.model}, {result.parameters:,} parameters")

        inputs = saved_inputs(read_activations(ACTIVATIONS))
        clip, ids, paddings = (
            inputs[name] for name in ("inputs", "text_token_ids", "text_paddings")
        )
        video_embeddings, text_embeddings, outputs = model(
            clip, ids, paddings, return_intermediate=True
        )
        print(f"clip         {clip.shape}")  # (1, T, H, W, 3)
        print(f"features     {outputs['spatiotemporal_features'].shape}")  # (1, T * N, D)
        print(f"embeddings   video {video_embeddings.shape}, text {text_embeddings.shape}")
        similarity = (video_embeddings @ text_embeddings.T)[0].tolist()
        print(f"similarity   {', '.join(f'{cosine:.3f}' for cosine in similarity)}")

        compared = vp.convert.verify(model, ACTIVATIONS)
        worst = max((each for each in compared if each.path.startswith(OUTPUT)), key=lambda e: e[1])
        print(
            f"parity       at most {worst.distance:.1e} from the official model in float64; "
            f"Flax in float32 is at {worst.flax_distance:.1e}"
        )
        if not all(each.agrees for each in compared):
            raise SystemExit("that is further than rounding explains")


if __name__ == "__main__":
    main()
