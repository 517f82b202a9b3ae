"""The size, memory and time of a full-size model, stored in different ways."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from benchmarks.quantization.ways import WAYS, WHOLE, Load, stored
from benchmarks.timing import in_turns, ratios
from benchmarks.work import inputs_of
from videoprism_mlx.weights.directory import named_parameters


def compare(name: str, load: Load, ways: Sequence[str], rounds: int) -> dict[str, dict[str, Any]]:
    """For each way: the bytes of the weights, MLX's memory, and the time beside that of float32.

    Two models are in memory while they take turns. Memory is measured with one. What layers a
    budget keeps changes none of these, so that ways with a budget are left out, and bfloat16, which
    is computed in float32 here.
    """
    arrays = {key: mx.array(array) for key, array in inputs_of(name).items()}
    mx.eval(arrays)
    found: dict[str, dict[str, Any]] = {}
    measured = [way for way in ways if WAYS[way].budget is None and WAYS[way].dtype == "float32"]
    for way in measured:
        found[way] = memory(load, way, arrays)
        if way != WHOLE and rounds:
            whole, other = stored(load, WAYS[WHOLE], [], {}), stored(load, WAYS[way], [], {})
            seconds = in_turns(
                {
                    WHOLE: lambda: mx.eval(whole(**arrays)),  # noqa: B023 - It is called here.
                    way: lambda: mx.eval(other(**arrays)),  # noqa: B023
                },
                rounds,
            )
            found[way] |= {"seconds": ratios(seconds, way, WHOLE)}
            del whole, other
        listed = ", ".join(f"{key} {value}" for key, value in found[way].items())
        print(f"{way:24}{listed}", flush=True)
    return found


def memory(load: Load, way: str, arrays: Any) -> dict[str, Any]:
    """The bytes of the weights, those that MLX holds, and its peak in a forward pass."""
    mx.clear_cache()
    before = mx.get_active_memory()
    model = stored(load, WAYS[way], [], {})
    mx.eval(model.parameters())
    size = sum(array.nbytes for array in named_parameters(model).values())
    mx.clear_cache()
    held = mx.get_active_memory() - before
    mx.reset_peak_memory()
    mx.eval(model(**arrays))
    peak = mx.get_peak_memory() - before
    return {"bytes": size, "held": held, "peak": peak}
