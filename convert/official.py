"""The official Flax model, run beside ours to compare them.

It needs jax, flax, einops and einshape, and the official repository on PYTHONPATH:
https://github.com/google-deepmind/videoprism.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from videoprism_mlx.convert.npz import Archive, Array
from videoprism_mlx.convert.verify import named_outputs
from videoprism_mlx.errors import CheckpointError, MissingLibraryError


class Libraries(NamedTuple):
    """The modules that run the official model."""

    jax: Any
    numpy: Any  # JAX's.
    traverse_util: Any  # Flax's.
    encoders: Any  # The official repository's.


@functools.cache
def libraries() -> Libraries:
    """Imports the libraries. Raises MissingLibraryError if one is missing."""
    from importlib import import_module

    names = ("jax", "jax.numpy", "flax.traverse_util", "videoprism.encoders")
    try:
        return Libraries(*map(import_module, names))
    except ImportError as error:
        raise MissingLibraryError(
            f"the official model cannot be imported ({error}); run `pip install jax flax einops "
            "einshape`, clone https://github.com/google-deepmind/videoprism and put the clone on "
            "PYTHONPATH"
        ) from None


def flax_model(config: Mapping[str, Any], dtype: npt.DTypeLike, scan: bool = False) -> Any:
    """The official model of a configuration, with activations in `dtype`.

    With `scan` its stacks of layers are scanned, as in the published checkpoints. Parameters are
    in float32 or wider.
    """
    keywords = dict(config)
    model_class = getattr(libraries().encoders, keywords.pop("model"))
    if "pos_emb_shape" in keywords:
        keywords["pos_emb_shape"] = tuple(keywords["pos_emb_shape"])
    if "encoder_params" in keywords:
        params = keywords["encoder_params"]
        shape = tuple(params["pos_emb_shape"])
        keywords["encoder_params"] = params | {"pos_emb_shape": shape, "scan": scan}
    else:
        keywords["scan"] = scan
    return model_class(**keywords, dtype=np.promote_types(dtype, np.float32), fprop_dtype=dtype)


def read_variables(checkpoint: Path, dtype: npt.DTypeLike, scan: bool) -> dict[str, Any]:
    """The variables of a checkpoint with scanned stacks, for a scanned or an unscanned model."""
    flat: dict[tuple[str, ...], Any] = {}
    with Archive(checkpoint) as archive:
        for key in archive.headers:
            if "/x_layers_" in key:
                raise CheckpointError(
                    f"{checkpoint} stores every layer separately; expected scanned stacks: convert "
                    "it, and back with videoprism_mlx.convert.mlx_to_flax(DIRECTORY, FILE, "
                    "scan=True)"
                )
            array = archive.read(key).astype(dtype)
            if "/x_layers/" in key and not scan:
                for layer, values in enumerate(array):
                    own_key = key.replace("/x_layers/", f"/x_layers_{layer}/")
                    flat[tuple(own_key.split("/"))] = libraries().numpy.asarray(values)
            else:
                flat[tuple(key.split("/"))] = libraries().numpy.asarray(array)
    tree: dict[str, Any] = libraries().traverse_util.unflatten_dict(flat)
    return tree


def run_outputs(
    config: Mapping[str, Any], checkpoint: Path, arrays: Mapping[str, Array], dtype: npt.DTypeLike
) -> dict[str, Array]:
    """The outputs of the official model by name, with all intermediate ones."""
    jax = libraries().jax
    with jax.enable_x64(dtype == np.float64):
        model = flax_model(config, dtype, scan=True)
        variables = read_variables(checkpoint, dtype, scan=True)
        arrays = {key: cast_floats(array, dtype) for key, array in arrays.items()}
        forward = jax.jit(lambda v, a: model.apply(v, **a, return_intermediate=True))
        return numpy_outputs(forward(variables, arrays))


def cast_floats(array: Array, dtype: npt.DTypeLike) -> Array:
    """Floats in `dtype`. Integers stay as they are."""
    return array.astype(dtype) if array.dtype.kind == "f" else array


def numpy_outputs(result: Any) -> dict[str, Array]:
    """The outputs of a model, ours or the official one, by name."""
    return {name: np.asarray(array) for name, array in named_outputs(result).items()}
