"""The law of rounding that bounds are derived from, and that this device keeps it."""

import math

import mlx.core as mx
import numpy as np
import pytest

from videoprism_mlx.runtime import blas, rounding

# What one term adds to the rounding of a sum: see the guide.
SHARE = 0.30


def matrices(terms: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(terms)
    return (
        random.randn(48, terms).astype(np.float32),
        random.randn(terms, 48).astype(np.float32),
    )


def roundings(found: np.ndarray, exact: np.ndarray) -> float:
    """The relative distance in units of 2**-24."""
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact)) * 2**24


@pytest.mark.parametrize("terms", [64, 384, 768, 3072])
def test_terms_added_one_after_the_other(terms: int) -> None:
    """NumPy's running sum adds so. Factors of 12 bits have exact products: only sums round."""
    one, other = ((each.view(np.uint32) & 0xFFFFF000).view(np.float32) for each in matrices(terms))
    products = one[:, None, :] * other.T[None, :, :]
    exact = products.sum(-1, dtype=np.float64)
    found = np.cumsum(products, axis=-1, dtype=np.float32)[..., -1]
    assert roundings(found, exact) == pytest.approx(SHARE * math.sqrt(terms), rel=0.1)


@pytest.mark.parametrize("terms", [16, 64, 384, 972, 3072])
def test_a_product_on_this_device_rounds_no_more(terms: int) -> None:
    one, other = matrices(terms)
    exact = one.astype(np.float64) @ other.astype(np.float64)
    found = np.array(mx.array(one) @ mx.array(other))
    allowed = SHARE * math.sqrt(min(terms, rounding.BLOCK)) * rounding.growth(terms)
    # The share is that of many terms. The products of few may round once more, each by itself.
    assert roundings(found, exact) <= 1.1 * allowed + 0.25


def test_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "sums_in_blocks", lambda: False)
    assert [rounding.growth(terms) for terms in (16, 384, 1536, 3456)] == [1, 1, 2, 3]
    monkeypatch.setattr(rounding, "sums_in_blocks", lambda: True)
    assert rounding.growth(3456) == 1


def test_which_devices_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "loaded", lambda: None)
    assert not rounding.sums_in_blocks()

    class OpenBLAS:
        openblas_get_config = None

    monkeypatch.setattr(blas, "loaded", OpenBLAS)
    assert rounding.sums_in_blocks() == (mx.default_device().type == mx.cpu)
    gpu = type("Device", (), {"type": mx.gpu})
    monkeypatch.setattr(mx, "default_device", gpu)
    assert not rounding.sums_in_blocks()
