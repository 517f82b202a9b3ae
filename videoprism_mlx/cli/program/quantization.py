"""The part of `videoprism-mlx convert` that quantizes and dequantizes."""

import argparse
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from videoprism_mlx.errors import InputError, shown

if TYPE_CHECKING:
    from videoprism_mlx.weights.quantize.files import Written

MODES = ("affine", "mxfp4", "mxfp8", "nvfp4")

# The options that say how, and what each is called in Python.
HOW = {
    "q_bits": "bits",
    "q_group_size": "group_size",
    "q_mode": "mode",
    "q_layer": "layers",
    "q_budget": "budget_bits",
    "calibration": "calibration",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    group = parser.add_argument_group("quantization")
    either = group.add_mutually_exclusive_group()
    either.add_argument(
        "-q", "--quantize", action="store_true", help="quantize the weights of linear layers"
    )
    either.add_argument(
        "--dequantize",
        action="store_true",
        help="write a quantized model directory without quantization",
    )
    group.add_argument("--q-bits", type=int, metavar="N", help="bits of a weight (default: 4)")
    group.add_argument(
        "--q-group-size",
        type=int,
        metavar="N",
        help="weights that share a scale: 32, 64 or 128 (default: 64)",
    )
    group.add_argument(
        "--q-mode",
        metavar=f"{{{','.join(MODES)}}}",
        help="how a weight is packed (default: affine)",
    )
    group.add_argument(
        "--q-layer",
        action="append",
        metavar="PATH=BITS",
        help="other bits for a layer or a part of the model, such as text_encoder=8; 'none' leaves "
        "it as it is; may be repeated",
    )
    group.add_argument(
        "--q-budget",
        type=float,
        metavar="BITS",
        help="keep the layers that cost most at 8 bits, as many as this average allows; needs "
        "--calibration",
    )
    group.add_argument(
        "--calibration",
        nargs="+",
        metavar="PATH",
        help="a few videos on which the cost of each layer is measured",
    )


def is_asked_for(options: argparse.Namespace) -> bool:
    """Whether to quantize or dequantize. Raises InputError for options without effect."""
    if not options.quantize:
        for name in HOW:
            if getattr(options, name) is not None:
                option = name.replace("_", "-")
                raise InputError(f"--{option} has no effect without -q; add -q or leave it out")
    return bool(options.quantize or options.dequantize)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Quantizes or dequantizes, and prints what was written. Returns it, for JSON."""
    from videoprism_mlx.errors import printable
    from videoprism_mlx.weights.quantize import files

    if options.output is None:
        raise InputError("there is no output; name it with -o")
    if options.verify is not None:
        raise InputError(
            "--verify compares with Flax to rounding, which a quantized model cannot pass; verify "
            "the model before it is quantized"
        )
    common: dict[str, Any] = dict(
        dtype=options.dtype, revision=options.revision, overwrite=options.overwrite
    )
    started = time.perf_counter()
    if options.quantize:
        written = files.quantize_to_directory(
            options.source,
            options.output,
            **settings(options),
            config=options.config,
            tokenizer=options.tokenizer,
            **common,
        )
    else:
        for name in ("config", "tokenizer"):
            if getattr(options, name) is not None:
                raise InputError(f"--{name} has no effect with --dequantize; leave it out")
        written = files.dequantize_to_directory(options.source, options.output, **common)
    seconds = time.perf_counter() - started
    if not options.json:
        for line in lines(written, seconds):
            print(printable(line))
    summary = {**written._asdict(), "output": str(written.output), "bits": written.bits}
    return {**summary, "seconds": seconds}


def lines(written: "Written", seconds: float) -> Iterator[str]:
    """What was written."""
    size = f"{written.parameters:,} parameters, {written.bytes / 1e6:,.1f} MB, {seconds:.1f} s"
    yield f"{written.output}: {written.model}, {size}"
    if written.quantization:
        yield f"{written.quantization}; with scales, {written.bits:.1f} bits a parameter"


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """The options as arguments of `quantize_to_directory`. Finds the videos."""
    given = {name: getattr(options, option) for option, name in HOW.items()}
    given["mode"] = given["mode"] or "affine"
    if given["layers"] is not None:
        given["layers"] = dict(map(layer, given["layers"]))
    if given["calibration"] is not None:
        from videoprism_mlx.video.find import find_videos

        given["calibration"] = list(find_videos(given["calibration"], lengthen=True).values())
    return given


def layer(said: str) -> tuple[str, Any]:
    """The path and the bits that PATH=BITS means; False for none."""
    path, _, bits = said.rpartition("=")
    if path and bits == "none":
        return path, False
    if not path or not bits.isdecimal():
        raise InputError(
            f"--q-layer is {shown(said)}; expected PATH=BITS, such as text_encoder=8, or PATH=none"
        )
    return path, int(bits)
