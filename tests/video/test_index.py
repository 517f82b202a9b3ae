"""The index of a file, from packets with made-up clocks."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from videoprism_mlx.video.ffmpeg.index import NO_CLOCK, Index, index_of, read_packets

BASE, FPS = 0.01, 25.0
STEP = 4


def packets(
    clocks: list[int | None], keys: tuple[int, ...] = (0,), marked: tuple[int, ...] = ()
) -> list[Any]:
    """Packets that are decoded when they are shown, and the places of those with a flag."""
    return [
        SimpleNamespace(
            pts=clock, dts=clock, is_discard=False, is_keyframe=at in keys, is_corrupt=at in marked
        )
        for at, clock in enumerate(clocks)
    ]


def index(*arguments: Any) -> Index:
    return read_packets(packets(*arguments), BASE, FPS)


def evenly(count: int, first: int = 0) -> list[int]:
    return list(range(first, first + STEP * count, STEP))


def test_packets_come_in_the_order_of_decoding() -> None:
    shuffled: list[Any] = packets([0, 16, 8, 4, 12])
    for at, one in enumerate(shuffled):
        one.dts = STEP * at - 8
    found = read_packets(shuffled, BASE, FPS)
    assert found.clocks.tolist() == [0, 4, 8, 12, 16] and found.is_exact
    np.testing.assert_allclose(found.times, np.arange(5) * 0.04)


def test_of_packets_with_the_same_clock_one_is_shown_if_the_codec_hides() -> None:
    found = read_packets(packets([0, 4, 4, 8, 900]), BASE, FPS, hides=True)
    assert found.clocks.tolist() == [0, 4, 8, 900] and found.is_exact
    np.testing.assert_allclose(found.times, [0, 0.04, 0.08, 9])


def test_frames_with_the_same_clock_are_at_the_same_time() -> None:
    found = index([0, 4, 4, 8, 900])
    assert not found.is_exact  # A seek could not tell them apart.
    np.testing.assert_allclose(found.times, [0, 0.04, 0.04, 0.08, 9])


def test_a_clock_that_goes_back_begins_another_recording() -> None:
    found = index([*evenly(50, 5000), *evenly(50)])
    np.testing.assert_allclose(found.times, np.arange(100) * 0.04)
    assert not found.is_exact
    assert len(found.begun_at(5000, False).clocks) == 100


@pytest.mark.parametrize("clocks", [[0] * 9, [0, 8, 4] * 30, [None, *evenly(8)]])
def test_clocks_that_make_no_sense(clocks: list[int | None]) -> None:
    found = index_of([NO_CLOCK if one is None else one for one in clocks], [0], BASE, FPS)
    np.testing.assert_allclose(found.times[:8], np.arange(8) / FPS)
    assert not found.is_exact


def test_a_recording_begins_with_the_first_frame_that_can_be_decoded() -> None:
    found = index(evenly(10), (0,), ()).begun_at(12, False)
    assert found.clocks.tolist() == evenly(7, 12)
    np.testing.assert_allclose(found.times, np.arange(7) * 0.04)


LOST = [*evenly(20), *evenly(20, 300)]


@pytest.mark.parametrize(
    ("marked", "keys", "lost"),
    [
        ((19,), (0,), 20),
        ((18,), (0,), 20),
        ((), (0,), None),  # Nobody was in front of the camera.
        ((19,), (0, 20), None),  # Another recording was joined.
        ((10,), (0,), None),  # No time passes there.
        ((39,), (0,), 39),  # The last packet is cut.
    ],
)
def test_frames_that_the_packets_say_are_lost(
    marked: tuple[int, ...], keys: tuple[int, ...], lost: int | None
) -> None:
    assert index(LOST, keys, marked).lost == lost


def test_what_is_lost_is_counted_from_the_first_frame() -> None:
    assert index(LOST, (0,), (19,)).begun_at(12, False).lost == 17
