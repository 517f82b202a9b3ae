"""When a video shows what a text says: the peaks of its scores."""

import csv
import json
from pathlib import Path

import media
import numpy as np
import pytest
from commands import run

import videoprism_mlx as vp
from videoprism_mlx.features.timeline import (
    Peak,
    Timeline,
    find_peaks,
    score_windows,
    usual_windows,
)


def timeline(*scores: list[float], width: float = 1.0) -> Timeline:
    starts = np.arange(len(scores[0]), dtype=float)
    return Timeline(starts, starts + width, np.array(scores, np.float32).T)


def spans(peaks: list[Peak]) -> list[tuple[float, float, float]]:
    return [(peak.start, peak.end, peak.seconds) for peak in peaks]


def test_runs_of_high_scores_best_first() -> None:
    # The median is 0 and the maximum 1: a peak is at 0.5 or more.
    scores = [0, 0.6, 0.5, 0, 0, 0, 1, 0.9, 0, 0.49, 0]
    peaks = find_peaks(timeline(scores), ["a"])
    assert spans(peaks) == [(6, 8, 6.5), (1, 3, 1.5)]
    assert [peak.score for peak in peaks] == pytest.approx([1, 0.6])
    assert {peak.text for peak in peaks} == {"a"}


def test_the_threshold_follows_the_texts_own_scores() -> None:
    scores = [0.0, 0.0, 0.8, 0.0, 0.2, 0.0]
    peaks = find_peaks(timeline(scores, [score / 10 for score in scores]), ["a", "b"])
    assert spans(peaks[:1]) == spans(peaks[1:]) == [(2, 3, 2.5)]
    assert [(peak.text, round(peak.score, 3)) for peak in peaks] == [("a", 0.8), ("b", 0.08)]


def test_runs_that_overlap_in_time_are_one() -> None:
    scores = [0.0, 1.0, 0.0, 0.8, 0.0, 0.0, 0.0]
    assert spans(find_peaks(timeline(scores, width=2.0), ["a"])) == [(1, 3, 2), (3, 5, 4)]
    assert spans(find_peaks(timeline(scores, width=2.5), ["a"])) == [(1, 5.5, 2.25)]


def test_equal_scores_and_a_single_window() -> None:
    assert spans(find_peaks(timeline([0.3, 0.3, 0.3]), ["a"])) == [(0, 3, 0.5)]
    assert spans(find_peaks(timeline([-0.3]), ["a"])) == [(0, 1, 0.5)]


def test_small_windows_leave_out_no_frame(
    searchable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video, text = media.clip("b.mp4"), "a red cat runs"
    model, processor = vp.load(searchable)
    assert processor.num_frames == 4
    expected = score_windows(model, processor, video, [text], None, 4, 30)
    assert len(expected.starts) > 2
    np.testing.assert_allclose(expected.starts[1:-1], expected.ends[:-2])
    assert vp.video_peaks(model, processor, video, [text], fps=30) == find_peaks(expected, [text])
    assert run("timeline", video, "--text", text, "--model", searchable, "--fps", 30, "--json") == 0
    assert json.loads(capsys.readouterr().out)["windows"] == len(expected.starts)
    processor = vp.Processor(num_frames=16, size=64)
    strides = [usual_windows(processor, window, None)[1] for window in (4, 8, 16)]
    assert strides == [4, 8, 8]
    assert usual_windows(processor, None, None) == (16, 8)
    assert usual_windows(processor, 3, 5) == (3, 5)


def test_the_command_and_the_call_agree(
    searchable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video, texts = media.clip("b.mp4"), ["a red cat runs", "a blue, grey ball"]
    model, processor = vp.load(searchable)
    peaks = vp.video_peaks(model, processor, video, texts, stride=2)
    assert peaks == find_peaks(score_windows(model, processor, video, texts, None, 2, 8), texts)
    rows = [(p.text, p.start, p.end, p.score) for p in peaks]

    wishes = ("timeline", video, "--text", *texts, "--stride", 2, "--model", searchable)
    assert run(*wishes, "-o", tmp_path / "p.csv", "--csv") == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "p.csv").read_text() == printed
    header, *lines = csv.reader(printed.splitlines())
    assert header == ["text", "from", "to", "score"]
    assert [(text, *map(float, numbers)) for text, *numbers in lines] == rows

    assert run(*wishes, "-o", tmp_path / "p.json", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["output"] == str(tmp_path / "p.json")
    assert found["peaks"] == json.loads((tmp_path / "p.json").read_text())
    names = ("text", "from", "to", "score")
    assert [tuple(peak[name] for name in names) for peak in found["peaks"]] == rows
    assert all(peak["cosine"] == peak["score"] for peak in found["peaks"])

    assert run(*wishes) == 0  # It needs no output.
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line in texts] == texts
    assert lines[1].split() == ["from", "to", "score"]
    assert lines[2].split()[2] == f"{peaks[0].score:.3f}"
