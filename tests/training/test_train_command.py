"""The command `train`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from coloured_clips import (
    RECIPE,
    Train,
    contents,
)
from safetensors.numpy import load_file

from videoprism_mlx.cli import main
from videoprism_mlx.training import classifier, retrieval
from videoprism_mlx.training.classifier import OFFICIAL_RECIPE
from videoprism_mlx.training.recipe import Recipe
from videoprism_mlx.training.session import Trained
from videoprism_mlx.training.views import PLAIN
from videoprism_mlx.video.ffmpeg.decoding import Decoding

pytest_plugins = ["classifier_fixtures", "retrieval_fixtures"]
pytestmark = pytest.mark.usefixtures("without_pictures")


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture
def command(clips: Path, backbone: Path, tmp_path: Path, shared_cache: Path) -> list[object]:
    where = ["--data", clips / "train", "--val", clips / "val", "-o", tmp_path / "out"]
    return ["train", "classifier", *where, "--model", backbone, "--cache", shared_cache]


def test_the_classifier_command(
    command: list[object],
    train: Train,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    how = ["--epochs", 12, "--batch-size", 4, "--learning-rate", 0.02]
    assert run(*command, *how) == 0
    printed = capsys.readouterr()
    assert printed.out == (
        "class  videos  accuracy\n"
        "blue        1    100.0%\n"
        "green       1    100.0%\n"
        "red         1    100.0%\n"
        "top-1 accuracy          100.0%\n"
        "top-5 accuracy          100.0%\n"
        "mean class accuracy     100.0%\n"
        f"loss                    {printed.out.split('loss')[1].split()[0]}\n"
        f"{printed.out.splitlines()[-1]}\n"
    )
    assert printed.out.splitlines()[-1].startswith(f"{tmp_path / 'out'}: epoch ")
    assert "epoch 12: loss " in printed.err
    assert contents(tmp_path / "out") == contents(train("same", recipe=RECIPE).directory)

    assert run(*command, *how, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "output": str(tmp_path / "out"),
        **json.loads((tmp_path / "out" / "metrics.json").read_text()),
    }
    assert run(*command, *how, "--seed", 1) == 2
    assert "recipe.seed was 0 and is now 1" in capsys.readouterr().err


def test_options_mean_what_they_say(
    command: list[object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def noted(*arguments: Any, **options: Any) -> Trained:
        calls.append((arguments, options))
        metrics = {"classes": [], "loss": 1.0, "epoch": 1}
        return Trained(tmp_path, metrics, (), ["a line"])

    monkeypatch.setattr(classifier, "train_classifier", noted)
    assert run(*command) == 1  # A video was left out.
    (_, plain), _ = calls[0], calls.clear()
    assert plain["recipe"] == Recipe() == OFFICIAL_RECIPE
    assert (plain["views"], plain["skip_bad"], plain["partial"]) == (1, False, False)
    assert not {"crop", "span"} & plain.keys()
    assert PLAIN.crop == PLAIN.span == 0.75  # As the help says.
    run(
        *command,
        *("--labels", tmp_path / "l.txt", "--dtype", "bfloat16", "--frames", 8, "--size", 24),
        *("--resize", "crop", "--resample", "lanczos", "--partial", "--skip-bad"),
        *("--views", 4, "--crop", 0.5, "--span", 0.25, "--epochs", 3, "--batch-size", 5),
        *("--learning-rate", 0.5, "--weight-decay", 0.25, "--warmup", 7, "--decay", "cosine"),
        *("--clip", 2.0, "--patience", 6, "--seed", 9, "--save-every", 11),
        *("--stream", 1, "--tone-map", "--hardware", "auto"),
    )
    [(_, said)] = calls
    assert said.pop("decoding") == Decoding(1, True, "auto")
    assert said.pop("recipe") == Recipe(3, 5, 0.5, 0.25, 7, "cosine", 2.0, 6, 9)
    assert said.pop("cache") is not None
    assert said == dict(
        labels=tmp_path / "l.txt", dtype="bfloat16", num_frames=8, size=24, resize="crop",
        resample="lanczos", partial=True, skip_bad=True, views=4, crop=0.5, span=0.25,
        save_every=11, overwrite=False,
    )  # fmt: skip


def test_a_command_that_leaves_videos_out(
    command: list[object],
    with_bad: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [*command, "--data", with_bad["data"], "--val", with_bad["val"], "--epochs", 1]
    assert run(*arguments) == 2
    assert "4 of 16 videos cannot be used" in capsys.readouterr().err
    assert run(*arguments, "--skip-bad") == 1
    assert capsys.readouterr().err.endswith("4 videos were left out\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--crop", "0.5"], "--crop is only for random views; ask for some with --views"),
        (["--views", "0"], "views is 0; expected 1 or more"),
        (["--epochs", "0"], "epochs is 0; expected 1 or more"),
        (["--labels", "gone.txt"], "gone.txt"),
        (["--data", "gone.json"], "gone.json"),
        (["--model", "gone"], "no model is called 'gone'"),
        (["--dtype", "int8"], "dtype is 'int8'"),
    ],
)
def test_mistakes_are_told(
    arguments: list[str], message: str, command: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command, *arguments) == 2
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].startswith("videoprism-mlx: ") and message in said.err
    assert said.out == ""


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom videoprism_mlx.cli import main\n"
        "try: main(['train', 'classifier', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'mlx', 'numpy', 'av', 'cv2', 'safetensors', 'matplotlib'} & set(sys.modules)\n"
        "print(heavy, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "set()" and "--patience" in done.stdout


def test_the_retrieval_command(
    searchable: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "train",
        "retrieval",
        "--model",
        searchable,
        "--data",
        pairs,
        "--val",
        pairs,
    ]
    command += ["-o", tmp_path / "out", "--cache", tmp_path / "cache", "--epochs", 2]
    command += ["--batch-size", 3, "--at-once", 2, "--rank", 2, "--towers", "text", "--json"]
    assert main([str(each) for each in command]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["output"] == str(tmp_path / "out") and printed["skipped"] == []
    assert 0 <= printed["text_to_video/recall@1"] <= 1
    arrays = load_file(tmp_path / "out" / "adapters.safetensors")
    assert arrays and all(key.startswith("text_encoder.") for key in arrays)
    assert main(["train", "retrieval", "--data", "none.csv", "-o", str(tmp_path / "x")]) == 2


def test_both_commands_have_the_options_of_reading(
    command: list[object],
    searchable: Path,
    pairs: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    calls: list[dict[str, Any]] = []

    def noted(*arguments: Any, **options: Any) -> Trained:
        calls.append(options)
        return Trained(tmp_path, {"classes": [], "loss": 1.0, "epoch": 1}, (), [])

    monkeypatch.setattr(classifier, "train_classifier", noted)
    monkeypatch.setattr(retrieval, "train_retrieval", noted)
    other = ["train", "retrieval", "--model", searchable, "--data", pairs, "-o", tmp_path / "out"]
    said = ["--frames", 8, "--size", 24, "--resize", "crop", "--resample", "lanczos"]
    said += ["--partial", "--dtype", "bfloat16", "--save-every", 3, "--skip-bad"]
    said += ["--cache", tmp_path / "cache", "--json"]
    expected = dict(
        num_frames=8, size=24, resize="crop", resample="lanczos", partial=True, dtype="bfloat16",
        save_every=3, skip_bad=True, cache=tmp_path / "cache",
    )  # fmt: skip
    for one in (command, other):
        run(*one, *said)
        assert {name: calls[-1][name] for name in expected} == expected
