"""The two functions of the model that are worth writing out for each kind of device.

On the CPU, MLX computes exp, tanh and erf one element at a time. There, rational approximations
take their place. They agree with the exact functions to float32 rounding, gradients included.
On a GPU, MLX's own functions are fast.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import mlx.core as mx

Function = Callable[[mx.array], mx.array]

# Above this cap, the sums of capped exponentials can overflow float32.
LARGEST_CAP = 60.0


@functools.cache
def capped_exp(cap: float) -> Function:
    """exp(cap * tanh(x / cap)), with MLX's own functions."""
    return mx.compile(lambda x: mx.exp(cap * mx.tanh(x / cap)))


class OddRational(NamedTuple):
    """x * P(x * x) / Q(x * x): an odd function that is 1, to rounding, from `end` on."""

    numerator: Sequence[float]  # Coefficients of P, the lowest power first.
    denominator: Sequence[float]  # Coefficients of Q.
    end: float

    def __call__(self, x: mx.array) -> mx.array:
        x = mx.clip(x, -self.end, self.end)
        square = x * x
        return x * polynomial(self.numerator, square) / polynomial(self.denominator, square)


def polynomial(coefficients: Sequence[float], x: mx.array) -> mx.array:
    """The sum of c[n] * x**n."""
    result = coefficients[-1] * x + coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        result = result * x + coefficient
    return result


# The coefficients minimise the largest error.
ERF = OddRational(
    (1.12837915, 0.189667238, 0.0526681519, 3.73836765e-3, 2.85063252e-4, 2.06647709e-6),
    (1.0, 0.501420995, 0.113819142, 0.0149143201, 1.15738246e-3, 3.82701172e-5),
    3.9,
)
TANH = OddRational(
    (
        1.0,
        0.131243502,
        3.14936519e-3,
        1.16424489e-5,
        -2.23146851e-8,
        6.36554481e-11,
        -1.15643398e-13,
    ),
    (1.0, 0.464576817, 0.0246750022, 2.61297495e-4),
    8.0,
)

# 2**x is the sum of (x ln 2)**n / n!, for x from -0.5 to 0.5.
POWERS_OF_TWO = tuple(math.log(2) ** n / math.factorial(n) for n in range(7))

# e**x is the sum of x**n / n!, for x from -1.2 to 0.
POWERS_OF_E = tuple(1 / math.factorial(n) for n in range(10))

# The density of the standard normal distribution at zero.
NORMAL_DENSITY: float = (2 * math.pi) ** -0.5

# Adding this to a float32 and subtracting it again rounds to the nearest integer.
ROUNDING = 1.5 * 2**23


# Compiled for each shape. With `shapeless=True`, a gradient reuses constants of an earlier shape.
@mx.compile
def _gelu(inputs: mx.array) -> mx.array:
    x = inputs.astype(mx.float32)
    share = 0.5 + 0.5 * ERF(x * 2**-0.5)
    # Below -8, the share is only rounding.
    return (mx.maximum(x, -8.0) * share).astype(inputs.dtype)


@mx.compile
def _gelu_slope(inputs: mx.array, cotangent: mx.array) -> mx.array:
    # Outside this range, the slope is 0 or 1 to rounding.
    x = mx.clip(inputs.astype(mx.float32), -6.0, 6.0)
    share = 0.5 + 0.5 * ERF(x * 2**-0.5)
    bell = polynomial(POWERS_OF_E, x * x * (-0.5 / 16))
    for _ in range(4):  # To the power of 16.
        bell = bell * bell
    slope = share + x * bell * NORMAL_DENSITY
    return cotangent * slope.astype(cotangent.dtype)


@mx.custom_function
def _differentiable_gelu(inputs: mx.array) -> mx.array:
    outputs: mx.array = _gelu(inputs)
    return outputs


@_differentiable_gelu.vjp
def _gelu_vjp(inputs: mx.array, cotangent: mx.array, _: mx.array) -> mx.array:
    return _gelu_slope(inputs, cotangent)


# MLX's stubs do not say what a custom_function returns.
rational_gelu = cast(Function, _differentiable_gelu)


@functools.cache
def rational_capped_exp(cap: float) -> Function:
    """exp(cap * tanh(x / cap)) of float32, approximated. `cap` is LARGEST_CAP at most."""

    @mx.compile
    def parts(x: mx.array) -> tuple[mx.array, mx.array]:
        power = TANH(x / cap) * (cap / math.log(2))
        whole = (power + ROUNDING) - ROUNDING
        exponent_bits = mx.left_shift(whole.astype(mx.int32) + 127, 23)
        return polynomial(POWERS_OF_TWO, power - whole), exponent_bits

    @mx.custom_function
    def result(x: mx.array) -> mx.array:
        fraction, exponent_bits = parts(x)
        return fraction * exponent_bits.view(mx.float32)

    @result.vjp
    def vjp(x: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
        return slope(x, cotangent, output)

    @mx.compile
    def slope(x: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
        return cotangent * output * (1 - mx.square(TANH(x / cap)))

    return cast(Function, result)
