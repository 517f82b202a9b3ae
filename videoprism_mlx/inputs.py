"""Checks the shape, type and range of everything that enters a model.

Shapes: B batch, T frames, L text positions.
"""

from typing import Any, cast

import mlx.core as mx
import numpy as np

from videoprism_mlx.errors import InputError, InputTypeError
from videoprism_mlx.runtime.limits import PIXEL_LIMIT

# Anything that becomes an MLX array: MLX, NumPy, nested lists.
ArrayLike = Any


def as_array(values: ArrayLike, name: str) -> mx.array:
    """`values` as an MLX array."""
    if isinstance(values, mx.array):
        return values
    try:
        array = np.asarray(values)
        if array.dtype.name == "bfloat16":  # JAX has it, from a package that extends NumPy.
            array = array.astype(np.float32)
        if array.dtype.kind not in "biuf":
            raise TypeError
    except (TypeError, ValueError):
        raise InputTypeError(
            f"{name} is a {type(values).__name__} that is not an array of numbers; "
            "pass an MLX or NumPy array"
        ) from None
    # MLX accepts neither negative strides (of a flipped axis) nor another byte order.
    return mx.array(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))


def value_range(values: mx.array) -> tuple[float, float] | None:
    """The smallest and the largest value; NaN if there is any. None if there are no values."""
    try:
        low, high = cast(list[float], mx.stack([mx.min(values), mx.max(values)]).tolist())
    except ValueError:  # The array is empty, or MLX is tracing it for compile or vmap.
        return None
    return low, high


def check_video(inputs: ArrayLike, patch_size: int) -> mx.array:
    """The video as an array. Raises InputError unless it can enter a model.

    Expected are floats in [0, 1] of shape (B, T, H, W, 3), H = W, a multiple of the patch size.
    """
    video = as_array(inputs, "inputs")
    expected = "expected (batch, frames, height, width, 3)"
    if video.ndim != 5:
        hint = "; add the batch axis with video[None]" if video.ndim == 4 else ""
        raise InputError(f"inputs has shape {video.shape}; {expected}{hint}")
    _, _, height, width, channels = video.shape
    if channels != 3:
        raise InputError(
            f"inputs has shape {video.shape}; {expected}: three colour channels, as the last axis"
        )
    if 0 in video.shape:
        raise InputError(f"inputs has shape {video.shape}, which is empty; {expected}")
    if height != width:
        raise InputError(
            f"inputs has frames of {height} x {width}; expected square ones: resize or crop them"
        )
    if height % patch_size:
        nearest = max(1, round(height / patch_size)) * patch_size
        raise InputError(
            f"inputs has frames of {height} x {width}; expected a multiple of the patch size "
            f"{patch_size}, such as {nearest} x {nearest}"
        )
    if not mx.issubdtype(video.dtype, mx.floating):
        raise InputTypeError(
            f"inputs is of type {video.dtype}; expected floats in [0, 1]: "
            "convert 0-255 pixels with video.astype('float32') / 255"
        )
    if limits := value_range(video):
        low, high = limits
        if not (low >= -PIXEL_LIMIT and high <= PIXEL_LIMIT):
            what = "NaN" if low != low or high != high else f"values from {low:g} to {high:g}"
            raise InputError(
                f"inputs holds {what}; expected floats in [0, 1]: divide 0-255 pixels by 255"
            )
    return video


def check_paddings(paddings: ArrayLike, shape: tuple[int, ...], name: str) -> mx.array:
    """Paddings as float32: 1 where padded, 0 elsewhere. Raises InputError for another shape."""
    given = as_array(paddings, name)
    if given.shape != tuple(shape):
        raise InputError(f"{name} has shape {given.shape}; expected {tuple(shape)}")
    checked = given.astype(mx.float32)
    limits = value_range(checked)
    if limits and not (limits[0] >= 0 and limits[1] <= 1):
        raise InputError(
            f"{name} holds values from {limits[0]:g} to {limits[1]:g}; "
            "expected 1 where padded and 0 elsewhere"
        )
    return checked


def shared_padding(paddings: mx.array) -> int:
    """How many positions at the end are padding in every row of (B, L). The first never counts.

    0 while MLX is tracing, because values cannot be seen then.
    """
    try:
        holds_text = cast(list[bool], mx.any(paddings <= 0.5, axis=0).tolist())
    except ValueError:
        return 0
    holds_text[:1] = [True]
    return holds_text[::-1].index(True)


def check_token_ids(ids: ArrayLike, vocabulary_size: int) -> mx.array:
    """The ids as an array. Raises InputError unless they are (B, L) and in the vocabulary."""
    checked = as_array(ids, "text_token_ids")
    if checked.ndim != 2:
        hint = "; add the batch axis with ids[None]" if checked.ndim == 1 else ""
        raise InputError(
            f"text_token_ids has shape {checked.shape}; expected (batch, length){hint}"
        )
    if not mx.issubdtype(checked.dtype, mx.integer):
        raise InputTypeError(f"text_token_ids is of type {checked.dtype}; expected integers")
    if limits := value_range(checked):
        low, high = limits
        if low < 0 or high >= vocabulary_size:
            raise InputError(
                f"text_token_ids holds ids from {low} to {high}; this model's vocabulary is "
                f"0 to {vocabulary_size - 1}: are they from another tokenizer?"
            )
    return checked
