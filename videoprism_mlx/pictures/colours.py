"""Features as colours: patches that are alike to the model get similar colours.

Shapes: T frames, D features. Images are RGB, 0-255.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from videoprism_mlx.errors import InputError

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]

# What one unit of each component adds to red, green and blue. The strongest component sets the
# lightness, the second goes from blue to yellow, the third from green to red: colour-blind people
# too see the strongest differences.
COLOUR_AXES = np.array([[0.28, 0.34, 0.30], [0.28, 0.10, -0.45], [0.34, -0.22, 0.16]])

# How many patches are converted to float64 at a time, to save memory on a long video.
BLOCK = 4096

# A component whose share of the features' mean square is smaller than this is rounding error.
SMALLEST_VARIANCE = 1e-12


def feature_colours(features: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Colours (T, rows, columns, 3) of features (T, rows, columns, D).

    Equal features have the same colour in all frames. The three strongest components become
    lightness, blue to yellow, and green to red. The 1st to 99th percentile of a component fill its
    range of colours; weak components fill less of it. If all features are equal, they are grey.
    """
    components = principal_components(features)
    flat = components.reshape(-1, 3)
    low, high = np.percentile(flat, [1, 99], axis=0)
    # If only a few patches differ in a component, its percentiles may be equal.
    reach = np.maximum((high - low) / 2, flat.std(axis=0))
    reach = np.maximum(reach, reach[0] / 20)
    reach[reach == 0] = 1
    units = np.clip((components - (low + high) / 2) / reach, -1, 1)
    shares: Doubles = np.clip(0.5 + units @ COLOUR_AXES, 0, 1)
    return np.round(255 * shares).astype(np.uint8)


def principal_components(features: npt.ArrayLike) -> Doubles:
    """The three strongest components (T, rows, columns, 3) of features (T, rows, columns, D).

    They are float64, have mean 0, and share one basis over all frames. The sign of each is chosen
    so that its longer tail is positive. If there are fewer than three, the others are 0.
    """
    features = np.asarray(features)
    if features.ndim != 4 or 0 in features.shape:
        raise InputError(
            f"the features have shape {features.shape}; expected (T, rows, columns, D)"
        )
    flat = features.reshape(-1, features.shape[-1])
    if not np.isfinite(flat).all():
        raise InputError("the features contain NaN or infinity; expected finite numbers")

    mean = flat.mean(axis=0, dtype=np.float64)
    size = flat.shape[1]
    covariance = np.zeros((size, size))
    for block in _blocks(flat):
        block = block - mean
        covariance += block.T @ block / len(flat)
    variances, axes = np.linalg.eigh(covariance)
    variances, axes = variances[::-1][:3], axes[:, ::-1][:, :3]
    there = variances > SMALLEST_VARIANCE * (np.trace(covariance) + mean @ mean)
    axes = _settled(variances[there], axes[:, there])

    components = np.concatenate([(block - mean) @ axes for block in _blocks(flat)])
    # The second term is small: it decides the sign only if both tails are almost equal.
    signs = np.where(_skewness(components) + (axes**3).sum(axis=0) < 0, -1.0, 1.0)
    components = np.pad(components * signs, ((0, 0), (0, 3 - len(signs))))
    return components.reshape(*features.shape[:3], 3)


def _blocks(flat: Array) -> Iterator[Doubles]:
    """The rows as float64, BLOCK at a time."""
    for first in range(0, len(flat), BLOCK):
        yield flat[first : first + BLOCK].astype(np.float64)


def _settled(variances: Doubles, axes: Doubles) -> Doubles:
    """Eigenvectors (D, up to 3), rotated so that small changes in the data change them only little.

    If variances are nearly equal, their eigenvectors may come out in any rotation. Power iterations
    from fixed directions choose one stable rotation of them. They do not change eigenvectors whose
    variances clearly differ.
    """
    size, count = axes.shape
    if count == 0:
        return axes
    turn: Doubles = axes.T @ np.cos(np.outer(np.arange(size), np.arange(1, count + 1)))
    for _ in range(32):
        turn, _ = np.linalg.qr(variances[:, None] / variances[0] * turn)
    rotated: Doubles = axes @ turn
    return rotated


def _skewness(values: Doubles) -> Doubles:
    """The skewness of each column. The columns have mean 0."""
    skewness: Doubles = (values**3).mean(axis=0) / (values**2).mean(axis=0) ** 1.5
    return skewness
