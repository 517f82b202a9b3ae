"""The peak memory of a forward pass over the weights, by block size, with what a GPU is given.

    python -m benchmarks.blocks [--models base "video-text base"] [--blocks 32 128] [--batches 1 8]

It runs on any device. The models have two spatial layers and one temporal layer: the memory does
not depend on their number.
"""

import argparse
import sys
from unittest.mock import patch

import mlx.core as mx

from benchmarks.work import MODELS
from videoprism_mlx.check.speed import clips, forward, ready_model
from videoprism_mlx.models import get_config
from videoprism_mlx.runtime import device

LAYERS = {"num_spatial_layers": 2, "num_temporal_layers": 1}


def peak_bytes(name: str, megabytes: float, batch: int) -> int:
    """The peak over what is there before: weights and clips."""
    config = get_config(MODELS.get(name, name)) | LAYERS
    model, video, gpu = ready_model(config, "float32"), clips(config, batch), device.gpu_backend()
    with patch.object(device, "backend", lambda: gpu), device.block_size(megabytes):
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        forward(model, video)
    return mx.get_peak_memory() - before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=["base"], metavar="NAME")
    parser.add_argument("--blocks", nargs="+", type=float, default=[32, 128], metavar="MB")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    options = parser.parse_args()
    for name in options.models:
        for batch in options.batches:
            for megabytes in options.blocks:
                peak = peak_bytes(name, megabytes, batch) / 1e6
                print(f"{name}, batch {batch}, blocks of {megabytes:g} MB: {peak:.0f} MB, "
                      f"{peak / megabytes:.1f} times a block", flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
