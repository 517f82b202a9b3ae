"""Cases of a test of which the default run has only some, and `-m slow` the others."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest


def thinned(*axes: Sequence[Any], keep: int) -> list[Any]:
    """All combinations of these values. One of `keep` is in the default run, spread evenly.

    The first combination always is. With two axes, each value is in one that is, if `keep` is at
    most the length of the other axis.
    """
    cases = []
    for places in itertools.product(*(range(len(axis)) for axis in axes)):
        values = [axis[place] for axis, place in zip(axes, places, strict=True)]
        flat = [one for each in values for one in (each if isinstance(each, tuple) else (each,))]
        cases.append(pytest.param(*flat, marks=[pytest.mark.slow] * (sum(places) % keep > 0)))
    return cases
