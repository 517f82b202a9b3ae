"""Saves what the official model computes, module by module.

See convert/verify.py for the content of an activations file.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from videoprism_mlx.convert.official import (
    cast_floats,
    flax_model,
    libraries,
    numpy_outputs,
    read_variables,
)
from videoprism_mlx.convert.verify import OUTPUT, distance, least_cosine


def plain_arguments(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of a case, as the official model expects them."""
    arguments = dict(inputs)
    wanted = arguments.get("return_intermediate")
    if isinstance(wanted, np.ndarray):
        arguments["return_intermediate"] = tuple(wanted.tolist())
    return arguments


def run(
    config: Mapping[str, Any], checkpoint: Path, inputs: Mapping[str, Any], dtype: Any
) -> dict[str, np.ndarray]:
    """The outputs of every module and of the model itself, by path."""
    with libraries().jax.enable_x64(dtype == np.float64):
        model = flax_model(config, dtype)
        variables = read_variables(checkpoint, dtype, scan=False)
        arguments = plain_arguments(inputs)
        arrays = {
            k: cast_floats(v, dtype) for k, v in arguments.items() if isinstance(v, np.ndarray)
        }
        options = {k: v for k, v in arguments.items() if k not in arrays}

        @libraries().jax.jit
        def forward(variables: Any, arrays: Any) -> Any:
            return model.apply(
                variables,
                **arrays,
                **options,
                capture_intermediates=True,
                mutable=["intermediates"],
            )

        result, state = forward(variables, arrays)
        check_scanned(config, checkpoint, arrays, options, dtype, result)
        seen = dict(module_outputs(state["intermediates"]))
        return {path: np.asarray(array) for path, array in seen.items()} | numpy_outputs(result)


def module_outputs(
    tree: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[str, Any]]:
    """(path, array) of each call of each module, except for dropout, which does nothing here."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from module_outputs(value, (*path, name))
        elif name == "__call__" and path and not path[-1].endswith("dropout"):
            for call, result in enumerate(value):
                array = result[0] if isinstance(result, tuple) else result
                yield "/".join(path) + (f"#{call}" if call else ""), array


def check_scanned(
    config: Any, checkpoint: Path, arrays: Any, options: Any, dtype: Any, expected: Any
) -> None:
    """Checks that the model computes the same with scanned layers, as they are published."""
    # The official model scans only stacks that have a layer.
    if dtype != np.float64 or 0 in (
        config.get("num_spatial_layers"),
        config.get("num_temporal_layers"),
    ):
        return
    model = flax_model(config, dtype, scan=True)
    variables = read_variables(checkpoint, dtype, scan=True)
    result = libraries().jax.jit(lambda v, a: model.apply(v, **a, **options))(variables, arrays)
    expected = numpy_outputs(expected)
    for name, array in numpy_outputs(result).items():
        # The softmax is in float32 all the same, and may be compiled to round differently.
        assert distance(array, expected[name]) < 1e-6, name


def save_activations(
    config: Mapping[str, Any],
    checkpoint: Path,
    inputs: Mapping[str, Any],
    output: Path,
    modules: bool = True,
) -> None:
    """Runs a case in each precision and writes its activations file.

    Without `modules`, only the outputs of the model are saved.
    """
    reference = run(config, checkpoint, inputs, np.float64)
    single = run(config, checkpoint, inputs, np.float32)
    if not modules:
        reference = {path: array for path, array in reference.items() if path.startswith(OUTPUT)}
    half = run(config, checkpoint, inputs, libraries().numpy.bfloat16)
    arrays = {f"input/{key}": np.asarray(value) for key, value in inputs.items()}
    for path, array in reference.items():
        arrays[f"distance/{path}"] = np.float64(distance(single[path], array))
        if path.startswith(OUTPUT):
            arrays[f"float64/{path}"] = array
            arrays[f"float32/{path}"] = single[path]
            arrays[f"cosine/{path}"] = np.float64(least_cosine(half[path], array))
        else:  # float32 takes half the space. It rounds 30 times finer than the smallest tolerance.
            arrays[f"float64/{path}"] = array.astype(np.float32)
    np.savez_compressed(output, **arrays)
