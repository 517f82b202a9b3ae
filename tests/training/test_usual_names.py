"""The usual names of training's settings, beside the older ones that stored runs have."""

import dataclasses
import json
from pathlib import Path

import pytest
from coloured_clips import QUICK, Train, contents
from lines import RECIPE, fit
from safetensors import safe_open

from videoprism_mlx.errors import TrainingError
from videoprism_mlx.training.recipe import Recipe, stored_names
from videoprism_mlx.training.retrieval import Tuning
from videoprism_mlx.training.run import LINE_WIDTH, printed_names, report

pytest_plugins = ["classifier_fixtures"]
pytestmark = pytest.mark.usefixtures("without_pictures")


def test_older_names_make_the_same_settings() -> None:
    assert Recipe(decay="cosine", clip=2.0) == Recipe(lr_schedule="cosine", max_grad_norm=2.0)
    assert Recipe(3, 5, 0.5, 0.25, 7, "cosine", 2.0).max_grad_norm == 2.0
    assert Tuning(at_once=3, recompute=True) == Tuning(micro_batch_size=3, grad_checkpoint=True)
    recipe = dataclasses.replace(Recipe(max_grad_norm=2.0), clip=1.0, decay="cosine")
    assert (recipe.clip, recipe.decay) == (recipe.max_grad_norm, recipe.lr_schedule)
    assert (recipe.clip, recipe.decay) == (1.0, "cosine")
    assert Tuning(at_once=3).at_once == 3 and not Tuning().recompute
    with pytest.raises(ValueError, match=r"max_grad_norm is -1\.0; expected a number above 0"):
        Recipe(clip=-1.0)
    with pytest.raises(TypeError, match="clipp"):
        Recipe(clipp=1.0)  # type: ignore[call-arg]


def test_stored_runs_keep_the_older_names(tmp_path: Path) -> None:
    expected = ["epochs", "batch_size", "learning_rate", "weight_decay", "warmup", "decay", "clip"]
    assert list(Recipe().record()) == [*expected, "patience", "seed"]
    names = ["towers", "rank", "alpha", "layers", "at_once", "dtype", "recompute"]
    assert list(stored_names(Tuning())) == names
    fit(tmp_path / "run", dataclasses.replace(RECIPE, max_grad_norm=1.5))
    with safe_open(tmp_path / "run" / "last.safetensors", "numpy") as file:
        recipe = json.loads(file.metadata()["run"])["record"]["recipe"]
    assert recipe["clip"] == 1.5 and "max_grad_norm" not in recipe
    _, history = fit(tmp_path / "run", dataclasses.replace(RECIPE, clip=1.5))  # It is the same run.
    assert len(history) == RECIPE.epochs


RETRIEVAL = {
    "epoch": 1,
    "loss": 1 / 3,
    "learning_rate": 1.234567e-05,
    "mean/recall@1": 1 / 7,
    **{
        f"{way}/{metric}": 1 / 7
        for way in ("text_to_video", "video_to_text")
        for metric in ("recall@1", "recall@5", "recall@10", "median_rank", "mean_rank")
    },
    "temperature": 0.01234567,
}


def test_the_line_of_an_epoch_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(RETRIEVAL, ["mean/recall@1", "loss"], tmp_path)
    line, where = capsys.readouterr().err.splitlines()
    assert len(line) <= LINE_WIDTH == 100
    assert line.startswith("epoch 1: loss 0.3333, learning_rate 1.235e-05, mean/recall@1 0.1429")
    assert where == f"all measurements of each epoch: {tmp_path / 'metrics.jsonl'}"
    report({**RETRIEVAL, "epoch": 2}, ["mean/recall@1", "loss"], tmp_path)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_chooses_the_best_epoch_is_always_on_the_line() -> None:
    names = printed_names({**RETRIEVAL, "val_loss": 0.5}, ["loss", "val_loss", "temperature"])
    assert {"loss", "val_loss", "temperature"} <= set(names)
    assert names == [name for name in [*RETRIEVAL, "val_loss"] if name in names]


def test_a_short_line_has_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report({"epoch": 1, "loss": 0.5, "top1": 1.0}, ["top1"], tmp_path)
    assert capsys.readouterr().err == "epoch 1: loss 0.5, top1 1\n"


def test_beginning_anew(train: Train) -> None:
    """A finished run with other settings is refused, and replaced if that is asked for."""
    other = dataclasses.replace(QUICK, seed=1)
    train("run", recipe=QUICK)
    with pytest.raises(TrainingError, match=r"begin anew with --overwrite \(overwrite=True\)"):
        train("run", recipe=other)
    again, fresh = train("run", recipe=other, overwrite=True), train("fresh", recipe=other)
    assert contents(again.directory) == contents(fresh.directory)
    assert len(again.history) == QUICK.epochs
