"""The time and memory of a forward pass, and how close it is to the machine's limit.

    python -m benchmarks.inference [--models base "video-text base"] [--dtypes float32 bfloat16]
                                   [--batches 1 4] [--save]

The limit is the speed of matrix products of the models' shapes, measured first. Weights and inputs
are random, which does not change the cost. Peak memory is that of MLX, with the weights.
"""

import argparse
import statistics
import sys
from typing import Any

import mlx.core as mx

from benchmarks.cost import model_cost
from benchmarks.timing import RESULTS, in_turns, save
from benchmarks.work import MODELS, inputs_of, model_of
from videoprism_mlx.check.machine import describe_machine
from videoprism_mlx.runtime import device
from videoprism_mlx.weights.directory import named_parameters

# Rows, inputs and outputs of the matrix product whose speed is the limit.
ROWS, WIDTH, HIDDEN = 8192, 768, 3072


def product_rate(dtype: str, rounds: int = 7) -> float:
    """FLOPs per second of the fastest of several matrix products, on all cores."""
    rows, weight = (
        mx.random.normal(shape).astype(getattr(mx, dtype))
        for shape in ((ROWS, WIDTH), (WIDTH, HIDDEN))
    )
    mx.eval(rows, weight)

    def product() -> None:
        mx.eval(device.in_blocks(lambda part: part @ weight, [rows], HIDDEN))

    seconds = in_turns({"product": product}, rounds)["product"]
    return 2 * ROWS * WIDTH * HIDDEN / min(seconds)


def measure(name: str, dtype: str, batch: int, rounds: int, rate: float) -> dict[str, Any]:
    """The time and memory of a forward pass."""
    mx.clear_cache()  # Of the previous model.
    model, inputs = model_of(name, dtype), inputs_of(name, batch)
    weights = sum(array.nbytes for array in named_parameters(model).values())
    arrays = {key: mx.array(array) for key, array in inputs.items()}
    mx.eval(arrays)

    def forward() -> None:
        mx.eval(model(**arrays))

    forward()
    mx.clear_cache()
    mx.reset_peak_memory()
    seconds = in_turns({name: forward}, rounds)[name]
    median = statistics.median(seconds)
    flops = model_cost(model, inputs).flops
    return {
        "model": name,
        "dtype": dtype,
        "batch": batch,
        "seconds": median,
        "least": min(seconds),
        "most": max(seconds),
        "clips_per_second": batch / median,
        "gflops": flops / 1e9,
        "share_of_limit": flops / median / rate,
        "weights_gb": weights / 1e9,
        "active_gb": mx.get_active_memory() / 1e9,
        "peak_gb": mx.get_peak_memory() / 1e9,
        "cache_gb": mx.get_cache_memory() / 1e9,
    }


def draw(rows: list[dict[str, Any]], path: Any) -> None:
    """Draws seconds per clip and peak memory of each row, as bars."""
    from matplotlib.figure import Figure

    labels = [f"{row['model']}, {row['dtype']}, batch {row['batch']}" for row in rows]
    figure = Figure(figsize=(10, 1.2 + 0.45 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, values, title, style in (
        (left, [r["seconds"] / r["batch"] for r in rows], "seconds a clip", "%.2f"),
        (right, [r["peak_gb"] for r in rows], "peak memory, GB", "%.2f"),
    ):
        bars = axes.barh(labels, values, color="#0072b2")
        axes.bar_label(bars, fmt=style, padding=3)
        axes.set_title(title)
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    left.invert_yaxis()
    figure.savefig(path, dpi=110)


def main() -> int:
    on_gpu = mx.default_device().type == mx.gpu
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=["base", "video-text base"], metavar="NAME")
    parser.add_argument(
        "--dtypes", nargs="+", default=["float32", "bfloat16"] if on_gpu else ["float32"]
    )
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--rounds", type=int, default=5, help="measured passes")
    parser.add_argument(
        "--save", action="store_true", help="write the figures and a plot to benchmarks/results"
    )
    options = parser.parse_args()

    for key, value in describe_machine().items():
        print(f"{key:16}{value}")
    rates = {dtype: product_rate(dtype) for dtype in options.dtypes}
    for dtype, rate in rates.items():
        print(f"{'products':16}{rate / 1e9:,.0f} GFLOP/s in {dtype}")
    print(
        "\n| model | type | batch | seconds (extremes) | a clip | of limit | peak GB | kept GB |"
        "\n|---|---|---:|---:|---:|---:|---:|---:|"
    )
    rows = []
    for name in options.models:
        for dtype in options.dtypes:
            for batch in options.batches:
                row = measure(name, dtype, batch, options.rounds, rates[dtype])
                rows.append(row)
                print(
                    f"| {name} | {dtype} | {batch} | {row['seconds']:.2f} ({row['least']:.2f} to "
                    f"{row['most']:.2f}) | {row['seconds'] / batch:.2f} | "
                    f"{row['share_of_limit']:.0%} | {row['peak_gb']:.2f} | {row['cache_gb']:.2f} |",
                    flush=True,
                )
    if options.save:
        products = {dtype: rate / 1e9 for dtype, rate in rates.items()}
        figures = {"product_gflops": products, "models": MODELS, "rows": rows}
        save("inference", "python -m benchmarks.inference", figures)
        draw(rows, RESULTS / "inference.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
