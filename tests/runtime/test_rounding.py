"""The law of rounding that bounds are derived from, and that this device keeps it."""

import math
import platform

import mlx.core as mx
import numpy as np
import pytest

from videoprism_mlx.convert.verify import longest_sum
from videoprism_mlx.models import get_model
from videoprism_mlx.runtime import blas, rounding

# What one rounding does to random numbers, and what one term adds to the rounding of a sum: see the
# guide.
ONE_ROUNDING, SHARE = 0.42, 0.30

# The largest blocks of OpenBLAS: 512 on x86-64 (Nehalem, and Zen 4 since 0.3.34), 1,024 on Arm
# (Cortex-A72).
OPENBLAS_BLOCK = 512 if platform.machine() == "x86_64" else 1024


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
    block = OPENBLAS_BLOCK if rounding.sums_in_blocks() else rounding.BLOCK
    allowed = SHARE * math.sqrt(min(terms, block)) * rounding.growth(terms)
    # The share is that of many terms. The products of few may round once more, each by itself.
    assert roundings(found, exact) <= 1.1 * allowed + 0.25


@pytest.mark.parametrize(("dtype", "bits"), [(mx.bfloat16, 8), (mx.float16, 11)])
@pytest.mark.parametrize("terms", [64, 3072])
def test_sums_of_half_precision_are_float32(terms: int, dtype: mx.Dtype, bits: int) -> None:
    """So a product is rounded once to its type, in whatever order it is summed."""
    one, other = (mx.array(each).astype(dtype) for each in matrices(terms))
    factors = [np.array(each.astype(mx.float32), np.float64) for each in (one, other)]
    found = np.array((one @ other).astype(mx.float32), np.float64)
    exact = factors[0] @ factors[1]
    assert roundings(found, exact) * 2.0 ** (bits - 24) == pytest.approx(ONE_ROUNDING, rel=0.1)


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("videoprism_public_v1_base", 3072),  # The mlp: attention is over 256 patches or 16 frames.
        ("videoprism_public_v1_large", 4096),
        ("videoprism_lvt_public_v1_base", 16 * 256),  # Pooling.
    ],
)
def test_the_longest_sum(name: str, terms: int) -> None:
    frames = 8 if "large" in name else 16
    assert longest_sum(get_model(name), {"inputs": mx.zeros((1, frames, 288, 288, 3))}) == terms


def test_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "sums_in_blocks", lambda: False)
    assert [rounding.growth(terms) for terms in (16, 384, 1536, 3456)] == [1, 1, 2, 3]
    monkeypatch.setattr(rounding, "sums_in_blocks", lambda: True)
    assert rounding.growth(3456) == 1


def test_which_devices_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(blas, "loaded", lambda: None)
    assert not rounding.sums_in_blocks()

    class OpenBLAS:
        openblas_get_config = None

    monkeypatch.setattr(blas, "loaded", OpenBLAS)
    assert rounding.sums_in_blocks() == (mx.default_device().type == mx.cpu)
    with monkeypatch.context() as on_a_mac:
        on_a_mac.setattr("sys.platform", "darwin")  # Where NumPy may have loaded OpenBLAS.
        assert not rounding.sums_in_blocks()
    gpu = type("Device", (), {"type": mx.gpu})
    monkeypatch.setattr(mx, "default_device", gpu)
    assert not rounding.sums_in_blocks()
