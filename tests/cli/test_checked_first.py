"""What a command needs is checked before anything is downloaded, loaded or computed."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import media
import pytest
from commands import run

import videoprism_mlx as vp
from videoprism_mlx.cli import main
from videoprism_mlx.files.checksum import with_checksum

MATPLOTLIB, PYARROW = "matplotlib.figure", "pyarrow.parquet"


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, searchable: Path, converted: Callable[[str], Path]
) -> Path:
    """A folder with models of every kind, videos, and lists of them."""
    root = tmp_path_factory.mktemp("place")
    models = {"searchable": searchable, "no_tokenizer": converted("clip_mild")}
    models |= {name: converted(f"{name}_mild") for name in ("encoder", "classifier")}
    models["text"] = converted("text")
    for name, directory in models.items():
        (root / name).symlink_to(directory)
    for number in range(2):
        shutil.copy(media.clip("b.mp4"), root / f"{number}.mp4")
    (root / "pairs.csv").write_text("video,caption\n0.mp4,a red cat\n1.mp4,a ball\n")
    (root / "labels.csv").write_text("video,label\n0.mp4,0\n1.mp4,1\n")
    (root / "names.txt").write_text("red\nblue\n")
    (root / "file").write_text("in the way of folders")
    (root / "empty").mkdir()
    shutil.copy(Path(__file__).parents[1] / "reference/clip_mild/checkpoint.npz", root / "flax.npz")
    model = vp.add_adapters(vp.load_model(searchable), 2)
    vp.save_adapters(model, root / "adapters", searchable)
    return root


@pytest.fixture
def nothing_is_loaded(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> pytest.MonkeyPatch:
    """Lets every download and every reading of weights fail as a bug would."""

    def reached(*arguments: Any, **options: Any) -> None:
        raise AssertionError("this was not to be reached")

    monkeypatch.chdir(place)
    monkeypatch.setenv("VIDEOPRISM_MLX_CACHE", str(tmp_path / "cache"))
    for name in ("hf_hub_download", "snapshot_download", "get_hf_file_metadata"):
        monkeypatch.setattr(huggingface_hub, name, reached)
    monkeypatch.setattr("urllib.request.urlopen", reached)
    for module in ("weights.loading.load_weights", "convert.flax.read_group"):
        monkeypatch.setattr(f"videoprism_mlx.{module}", reached)
    monkeypatch.setattr("videoprism_mlx.convert.flax.read_arrays", reached)
    return monkeypatch


TEXT = ("--text", "a cat")
COMMANDS = {
    "embed": ("embed", "0.mp4", "-o", "new.npz"),
    "similarity": ("similarity", "--video", "0.mp4", *TEXT),
    "classify": ("classify", "0.mp4", "--labels", "cat", "dog"),
    "show": ("show", "0.mp4", "-o", "new.png"),
    "timeline": ("timeline", "0.mp4", *TEXT, "-o", "new.png"),
    "retrieval": ("evaluate", "retrieval", "--data", "pairs.csv"),
    "zero-shot": ("evaluate", "zero-shot", "--data", "labels.csv", "--labels", "names.txt"),
    "classifier": ("evaluate", "classifier", "--data", "labels.csv"),
    "train classifier": ("train", "classifier", "--data", "labels.csv", "-o", "new"),
    "train retrieval": ("train", "retrieval", "--data", "pairs.csv", "-o", "new"),
    "fuse": ("fuse", "--adapters", "adapters", "-o", "new"),
}
NEED_TEXT = ("similarity", "classify", "timeline", "retrieval", "zero-shot", "train retrieval")
TEXTLESS = "cannot compare videos with texts; use a video-text model"
SPELLED = "dtype is 'float31'; expected one of float32, bfloat16, float16"
ADAPTERS = "holds adapters and no model; give it with --adapters"

CASES = [
    ("timeline", ("--model", "searchable"), "needs matplotlib: pip install", MATPLOTLIB),
    ("embed", ("-o", "new.parquet"), "a .parquet file needs pyarrow: pip install", PYARROW),
    ("embed", ("-o", "new", "--format", "parquet"), "needs pyarrow", PYARROW),
    ("embed", ("-o", "new.npy"), "expected *.npz, *.safetensors, *.jsonl, *.parquet"),
    ("embed", ("-o", "new.NPZ"), "not written to .NPZ files; expected *.npz"),
    ("embed", ("-o", "new.parquet", "--features", "tokens"), "rows of a .parquet file hold one"),
    ("embed", ("--model", "encoder", "--features", "embedding"), "has no embedding"),
    ("embed", ("--size", "19", "--model", "searchable"), "size is 19; expected a multiple of 6"),
    ("similarity", ("--temperature", "0", "--model", "searchable"), "expected a number above 0"),
    ("classify", ("--temperature", "nan", "--model", "searchable"), "expected a number above 0"),
    ("classify", ("--model", "classifier"), "there are 2 labels; expected 7"),
    ("show", ("--start", "-1"), "start is -1.0; expected seconds, 0 or above"),
    ("show", ("--frames", "0"), "expected 1 or more"),
    ("timeline", ("--end", "nan"), "end is nan; expected seconds"),
    ("timeline", ("--window", "0", "--model", "searchable"), "window is 0; expected 1 frame"),
    ("timeline", ("--fps", "0"), "fps is 0.0; expected frames a second"),
    ("zero-shot", ("--template", "x", "--model", "searchable"), "expected a text with {}"),
    ("classifier", ("--model", "searchable"), "is not a classifier; train one"),
    ("classifier", ("--model", "classifier", "--labels", "names.txt"), "there are 2 names"),
    ("train retrieval", ("--rank", "999", "--model", "searchable"), "rank is 999; expected 24 at"),
    ("train retrieval", ("--cache", "file/c"), "file is not a folder"),
    ("retrieval", ("--cache", "file/c"), "file is not a folder"),
    *((name, ("--model", "encoder"), TEXTLESS) for name in NEED_TEXT),
    *((name, ("--model", "no_tokenizer"), "no_tokenizer has no tokenizer; ") for name in NEED_TEXT),
    *((name, ("--dtype", "float31"), SPELLED) for name in (*NEED_TEXT, "embed", "show", "fuse")),
    *((name, ("--model", "text"), "has no video encoder") for name in ("embed", "show")),
    *((name, ("--model", "adapters"), ADAPTERS) for name in ("embed", "similarity", "show")),
    *(
        (name, ("--adapters", "empty", "--model", "searchable"), "empty holds no adapters")
        for name in ("embed", "similarity", "timeline", "retrieval", "fuse")
    ),
    *(
        (name, ("-o", f"file/new{ending}"), "file is not a folder")
        for name, ending in (
            *(("embed", ".npz"), ("embed", ""), ("show", ".png"), ("timeline", ".png")),
            *(("retrieval", ".json"), ("zero-shot", ".json"), ("fuse", "")),
            *(("train classifier", ""), ("train retrieval", "")),
        )
    ),
    *((name, ("-o", "empty"), "is a folder; expected the") for name in ("retrieval", "zero-shot")),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {' '.join(case[1])}")
def test_a_mistake_costs_no_time(
    case: tuple[Any, ...],
    nothing_is_loaded: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, options, message, *hidden = case
    for module in hidden:
        nothing_is_loaded.setitem(sys.modules, module, None)
    arguments = [*COMMANDS[name], *options]
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.out == ""
    assert len(printed.err.splitlines()) == 1


@pytest.mark.parametrize("name", ["show", "timeline", "similarity", "classify", "embed"])
def test_a_missing_video_costs_no_download(
    name: str, nothing_is_loaded: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing_is_loaded.setattr(vp.Processor, "load_tokenizer", lambda processor: None)
    arguments = [each.replace("0.mp4", "nowhere.mp4") for each in COMMANDS[name]]
    assert main(arguments) == 2
    assert "nowhere.mp4: there is no such file or folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("flax.npz", "-o", "empty/../searchable"), "already exists"),
        (("flax.npz", "-o", "file/new"), "file is not a folder"),
        (("google/videoprism-base-f16r288", "-o", "searchable"), "already exists"),
        (("videoprism_public_v1_base", "-o", "new", "--tokenizer", "no"), "there is no such file"),
        (("videoprism_public_v1_base", "-o", "new", "--dtype", "float31"), SPELLED),
        (("videoprism_public_v1_base", "-o", "new", "--verify", "no.npz"), "no such file"),
        (("videoprism_public_v1_base", "-o", "new", "--verify", "flax.npz"), "no saved activation"),
        (("searchable", "-o", "new"), "is a model directory already, from which a Flax .npz is"),
        (("empty", "-o", "new.npz"), "empty is not a model directory"),
        (("videoprism_lvt_demo_tiny", "-o", "new"), "is a model directory already"),
    ],
)
def test_mistakes_of_convert(
    options: tuple[str, ...],
    message: str,
    nothing_is_loaded: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["convert", *options]) == 2
    assert message in capsys.readouterr().err
    assert not Path("new").exists()


def test_a_model_that_comes_with_the_package_goes_to_flax(tmp_path: Path) -> None:
    name = vp.models.DEMO_MODEL
    assert run("convert", name, "-o", tmp_path / "tiny.npz") == 0
    vp.convert.flax_to_mlx(tmp_path / "tiny.npz", tmp_path / "tiny", vp.models.get_config(name))
    assert (tmp_path / "tiny/model.safetensors").stat().st_size > 1e6


@pytest.mark.parametrize(("kind", "message"), [("flax.npz", "of arrays"), ("0.mp4", None)])
def test_info_tells_a_checkpoint_from_a_video(
    kind: str, message: str | None, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("info", place / kind) == (2 if message else 0)
    assert message is None or message in capsys.readouterr().err


def test_a_model_for_adapters_is_the_one_they_were_trained_on(
    place: Path, searchable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapters = ("--adapters", place / "adapters")
    results = []
    for model in ((), ("--model", searchable)):
        arguments = ("similarity", "--video", place / "0.mp4", *TEXT, *adapters, *model)
        assert run(*arguments, "--json") == 0
        results.append(json.loads(capsys.readouterr().out))
    assert results[0] == results[1]
    assert run("fuse", *adapters, "-o", tmp_path / "fused") == 0
    source = json.loads((tmp_path / "fused/config.json").read_text())["source"]
    assert source["base"] == str(searchable)
    model, _ = vp.load(adapters=place / "adapters")
    assert model.directory is None or model.directory == searchable
    embedded = vp.embed(place / "0.mp4", tmp_path / "f.npz", adapters=place / "adapters")
    assert embedded.videos == ("0.mp4",)


def test_the_model_of_the_adapters_is_gone(
    place: Path, searchable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = shutil.copytree(searchable, tmp_path / "base")
    vp.save_adapters(vp.add_adapters(vp.load_model(base), 2), tmp_path / "adapters", base)
    shutil.rmtree(base)
    arguments = ("similarity", "--video", place / "0.mp4", *TEXT)
    assert run(*arguments, "--adapters", tmp_path / "adapters") == 2
    said = capsys.readouterr().err
    assert f"was trained on {base}, which is not there any more; name the model's" in said
    config = tmp_path / "adapters" / "adapter_config.json"
    described = json.loads(config.read_text())
    described["base"]["name"] = f"/{'x' * 10_000}"
    config.write_text(json.dumps(with_checksum(described)))
    assert run(*arguments, "--adapters", tmp_path / "adapters") == 2
    said = capsys.readouterr().err
    assert "x…, which is not there any more" in said and len(said) < 600


def test_required_options_are_shown_as_required(capsys: pytest.CaptureFixture[str]) -> None:
    for command, option in (
        (("fuse",), "--adapters DIR"),
        (("evaluate", "classifier"), "--model NAME|DIR"),
    ):
        with pytest.raises(SystemExit):
            run(*command, "--help")
        usage = " ".join(capsys.readouterr().out.split("\n\n")[0].split())
        assert option in usage and f"[{option}]" not in usage


def test_verifying_with_the_wrong_file_names_one_module(
    converted: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    activations = Path(__file__).parents[1] / "reference/clip/plain.npz"
    assert run("convert", converted("encoder"), "--verify", activations) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "plain.npz is of another configuration: it has the input text_token_ids" in line
    reference = activations.parents[1] / "encoder/plain.npz"
    assert run("convert", converted("encoder_primer_hybrid"), "--verify", reference) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "activations that this model lacks or has in another shape, such as spatial" in line
    assert len(line) < 500
