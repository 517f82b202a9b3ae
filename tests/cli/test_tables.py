"""Tables whose columns stay apart."""

import pytest

from videoprism_mlx.cli.evaluate import retrieval_table
from videoprism_mlx.cli.program.tables import (
    class_lines,
    cut,
    direction_lines,
    metric_lines,
    width,
)
from videoprism_mlx.cli.train.retrieval import print_metrics

LONG = "a name that is much longer than the column may be"
ROWS = [
    {"name": "sit", "examples": 3, "accuracy": 0.5},
    {"name": LONG, "examples": 1234567, "accuracy": 1.0},
    {"name": "猫が走る", "examples": 0, "accuracy": None},
]  # fmt: skip


def test_rows_of_classes() -> None:
    header, *lines = class_lines(ROWS)
    assert header == f"{'class':40}  videos  accuracy"
    assert lines[0] == f"{'sit':40}       3     50.0%"
    assert lines[1].split("  ")[0] == "a name that is much longer than the col…"
    assert lines[1].endswith("1234567    100.0%")
    assert width(lines[2]) == width(header) and lines[2].endswith("0         -")
    assert class_lines([]) == []


def test_names_and_values_of_metrics() -> None:
    lines = metric_lines({"top1": 0.25, "map": 1.0, "mean_class_accuracy": 0.5, "loss": 1234.5678})
    assert lines == [
        "top-1 accuracy          25.0%",
        "mean average precision  100.0%",
        "mean class accuracy     50.0%",
        "loss                    1235",
    ]


def test_large_ranks() -> None:
    figures = {"recall@1": 1.0, "recall@5": 1.0, "recall@10": 1.0}
    figures |= {"median_rank": 123456.0, "mean_rank": 1234567.5}
    metrics = {f"{way}/{k}": v for way in ("text_to_video", "video_to_text")
               for k, v in figures.items()}  # fmt: skip
    result = {"metrics": metrics, "measured": 3, "texts": 4, "texts_cut": 0}
    header, *lines, _ = retrieval_table(result)
    assert [line.split()[3:] for line in lines] == [["100.0%"] * 3 + ["123456.0", "1234567.5"]] * 2
    assert {len(line) for line in (header, *lines)} == {59}


def test_what_a_training_of_captions_prints(capsys: pytest.CaptureFixture[str]) -> None:
    plain = {"epoch": 1, "loss": 0.25, "learning_rate": 1e-5, "temperature": 0.07}
    print_metrics(plain)
    losses = ["loss                    0.25", "temperature             0.07"]
    assert capsys.readouterr().out.splitlines() == losses
    figures = {"recall@1": 0.5, "recall@5": 1.0, "recall@10": 1.0, "median_rank": 1, "mean_rank": 2}
    measured = {f"{way}/{k}": v for way in ("text_to_video", "video_to_text")
                for k, v in figures.items()}  # fmt: skip
    print_metrics({**plain, "mean/recall@1": 0.5, **measured})
    assert capsys.readouterr().out.splitlines() == [*direction_lines(measured), *losses]
    assert (
        direction_lines(measured)
        == retrieval_table({"metrics": measured, "measured": 1, "texts": 1, "texts_cut": 0})[:-1]
    )


def test_cutting() -> None:
    assert cut("four", 4) == "four" and cut("fours", 4) == "fou…"
    assert cut("猫が走る", 7) == "猫が走…" and width(cut("猫が走る", 6)) <= 6
