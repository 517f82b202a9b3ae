"""Neighbouring windows of one event become one moment."""

import numpy as np
import pytest

from videoprism_mlx.library.search.merging import merged


def moments(scores: list[float], window: float = 4.0, stride: float = 4.0) -> list[tuple]:
    """The first, last and best window of each moment."""
    starts = stride * np.arange(len(scores))
    return [tuple(run) for run in merged(starts, starts + window, np.array(scores))]


def test_an_event_among_others_has_its_extent() -> None:
    assert moments([0.1, 0.1, 0.8, 0.9, 0.7, 0.1, 0.1])[0] == (2, 4, 3)


def test_a_window_below_halfway_does_not_join() -> None:
    assert moments([0.0, 0.0, 0.0, 1.0, 0.49, 0.0])[0] == (3, 3, 3)
    assert moments([0.0, 0.0, 0.0, 1.0, 0.51, 0.0])[0] == (3, 4, 3)


def test_two_events_are_two_moments_and_a_slope_is_none() -> None:
    found = moments([0.0, 0.9, 0.3, 0.0, 0.0, 0.6, 0.5, 0.0])
    assert found[:2] == [(1, 1, 1), (5, 6, 5)]
    assert all(best not in (2, 6) for _, _, best in found)


def test_a_video_that_shows_one_thing_is_one_moment() -> None:
    assert moments([0.80, 0.82, 0.79, 0.81]) == [(0, 3, 1)]
    assert moments([0.5, 0.5, 0.5]) == [(0, 2, 0)]


def test_windows_apart_do_not_join() -> None:
    assert moments([0.9, 0.9], window=4.0, stride=6.0) == [(0, 0, 0), (1, 1, 1)]


def test_windows_that_overlap_join() -> None:
    assert moments([0.0, 0.9, 0.9, 0.0, 0.0], window=4.0, stride=2.0)[0] == (1, 2, 1)


def test_negative_scores_and_none() -> None:
    assert moments([-0.9, -0.1, -0.9, -0.9])[0] == (1, 1, 1)
    assert moments([]) == []


@pytest.mark.parametrize("seed", range(20))
def test_moments_never_share_a_window_and_keep_to_the_rule(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.uniform(-0.2, 1, size=30)
    starts = 4.0 * np.arange(30) + np.where(np.arange(30) > 14, 10.0, 0.0)
    runs = merged(starts, starts + 4, scores)
    windows = [number for run in runs for number in range(run.first, run.last + 1)]
    assert len(windows) == len(set(windows))
    assert [scores[run.best] for run in runs] == sorted(
        (scores[r.best] for r in runs), reverse=True
    )
    for run in runs:
        peak, inside = scores[run.best], scores[run.first : run.last + 1]
        assert peak == inside.max() and not run.first <= 14 < run.last
        level = min((np.median(scores) + peak) / 2, peak)
        assert (inside >= (min(level, 0.9 * peak) if peak > 0 else level)).all()
    assert runs[0].best == scores.argmax()
    assert merged(starts, starts + 4, scores, most=1) == runs[:1]
