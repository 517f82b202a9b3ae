"""A stand-in for an official checkpoint: the same layout, with random parameters."""

import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from videoprism_mlx.convert.rules import Layout
from videoprism_mlx.errors import InputError, whole_number
from videoprism_mlx.files.atomic import new_file
from videoprism_mlx.files.npz import write_array
from videoprism_mlx.models import get_config

# With queries and keys of this standard deviation, logits reach the cap of 50.
CAP_REACHING_GAIN = 3.0

# Standard deviations by the name of a leaf. `deviation` computes those that depend on the shape.
# All other leaves have 0.1.
DEVIATIONS = {"pooling_attention_query": 1.0, "emb_var": 0.5, "scale": 0.2, "per_dim_scale": 0.3}


def draw_checkpoint(
    config: str | Mapping[str, Any],
    output: str | Path,
    seed: int = 0,
    scan: bool = True,
    gain: float = CAP_REACHING_GAIN,
) -> Path:
    """Writes a random Flax checkpoint of that configuration to the new file `output`.

    It is made for tests. So that every mistake is visible, no parameter has its usual initial
    value, and attention logits reach the cap. With a `gain` of 1, they stay far below it. The same
    seed gives the same bits on every machine, with or without `scan` the same values.
    """
    if whole_number(seed, "seed") < 0:
        raise InputError(f"seed is {seed}; expected 0 or above")
    layout = Layout(get_config(config))
    shapes = layout.expected(())
    with new_file(output) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for key, group in layout.groups.items():
            keys = [key] if group[0].layer is None else [each.own_key for each in group]
            if group[0].layer is not None and scan:
                write_array(archive, key, np.stack([draw(k, shapes[k], seed, gain) for k in keys]))
            else:
                for each in keys:
                    write_array(archive, each, draw(each, shapes[each], seed, gain))
        for key, shape in layout.empty.items() if scan else ():
            write_array(archive, key, np.zeros(shape, np.float32))
    return Path(output)


def draw(key: str, shape: tuple[int, ...], seed: int, gain: float) -> npt.NDArray[np.float32]:
    """The values of one parameter: uniform around zero, with the standard deviation of its kind."""
    count = math.prod(shape)
    seeds = np.random.SeedSequence([seed, zlib.crc32(key.encode())])
    raw = np.random.PCG64(seeds).random_raw((count + 1) // 2).view(np.uint32)[:count]
    values = (raw >> 8).astype(np.float32) * np.float32(2**-24) - np.float32(0.5)
    return (values * np.float32(math.sqrt(12) * deviation(key, shape, gain))).reshape(shape)


def deviation(key: str, shape: tuple[int, ...], gain: float) -> float:
    """The standard deviation of a parameter's values."""
    *path, leaf = key.split("/")
    if leaf == "kernel":
        return float(shape[0] ** -0.5)
    if leaf == "w":
        fan_in = shape[1] * shape[2] if path[-1] == "post" else shape[0]
        capped = path[-1] in ("query", "key") and path[-2] == "self_attention"
        return (gain if capped else 1.0) * float(fan_in**-0.5)
    if leaf == "cls_emb" or path[-1] == "token_emb":
        return float(shape[-1] ** -0.5)
    return DEVIATIONS.get(leaf, 0.1)
