"""How fast each worker is, as a bar and the end of a run say it."""

import pytest

from videoprism_mlx.workers import rates
from videoprism_mlx.workers.rates import Rates


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Rates:
    """Two workers that have worked for 10 s, with 340 s and 15 s of video."""
    now = iter([10.0, 15.0, 20.0])
    monkeypatch.setattr(rates.time, "monotonic", lambda: next(now))
    found = Rates()
    found.count("mac1", 5.0, 140.0)
    found.count("mac1", 4.0, 200.0, tasks=2)
    found.count("mac2\x1b", 10.0, 15.0)
    return found


def test_a_bar_shows_the_workers_that_take_part(counted: Rates) -> None:
    both = {"mac1", "mac2\x1b", "mac3"}
    assert counted.short(both, 80) == "mac1 34x, mac2\\x1b 1.5x"
    assert counted.short(both, 20) == "2 workers 36x"
    assert counted.short({"mac1"}, 20) == "mac1 34x"
    assert counted.short(set(), 20) == ""


def test_the_end_says_what_each_has_done(counted: Rates) -> None:
    assert counted.lines() == [
        "mac1: 3 tasks, 340 s of video, 34x real time",
        "mac2\\x1b: 1 task, 15 s of video, 1.5x real time",
    ]


def test_without_times_tasks_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates.time, "monotonic", lambda: 30.0)
    found = Rates()
    found.count("mac1", 20.0, 0.0, tasks=500)
    assert found.short({"mac1"}, 80) == "mac1 1,500/min"
    assert found.lines("video") == ["mac1: 500 videos, 1,500 a minute"]
