"""`convert -q` and `--dequantize`: what they write and print, and commands on quantized models."""

import json
from pathlib import Path

import media
import pytest
from commands import run
from quantizing import CONFIG, TOKENS, checkpoint, directory, parameters, same_parameters

import videoprism_mlx as vp
from videoprism_mlx.features.formats import read_features
from videoprism_mlx.hub.contents import public
from videoprism_mlx.weights.base import base_name
from videoprism_mlx.weights.directory import read_config

TINY = "videoprism_lvt_demo_tiny"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model that ships, in 8 bits."""
    output = tmp_path_factory.mktemp("tiny") / "q8"
    assert run("convert", TINY, "-o", output, "-q", "--q-bits", 8, "--q-group-size", 32) == 0
    return output


def test_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dense, q = directory(tmp_path), tmp_path / "q"
    capsys.readouterr()
    assert run("convert", dense, "-o", q, "-q") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{q}: FactorizedVideoCLIP, 3") and first.endswith(" s")
    assert second.startswith("4 bits in groups of 64 (1 layer not quantized); with scales, ")
    assert second.endswith(" bits a parameter")
    assert run("info", q) == 0
    said = capsys.readouterr().out
    assert "quantization    4 bits in groups of 64 (1 layer not quantized)\n" in said
    assert f"quantized from  {dense}, SHA-256 " in said
    assert run("info", q, "--verify", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    stored = sum(array.nbytes for array in parameters(vp.load_model(q)).values())
    half = sum(array.nbytes for array in parameters(vp.load_model(q, "bfloat16")).values())
    assert found["weights_bytes"] == {"float32": stored, "bfloat16": half, "float16": half}

    assert run("convert", q, "-o", tmp_path / "back.npz") == 2
    assert f"`videoprism-mlx convert {q} -o DIRECTORY --dequantize`" in capsys.readouterr().err
    assert run("convert", q, "-o", tmp_path / "d", "--dequantize", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["quantization"] is None and summary["bits"] == 32
    assert run("convert", tmp_path / "d", "-o", tmp_path / "back.npz") == 0
    assert run("convert", tmp_path / "d", "-o", q, "-q", "--q-bits", 8, "--overwrite") == 0
    assert read_config(q)["quantization"]["bits"] == 8


def test_from_a_checkpoint_with_all_options(tmp_path: Path) -> None:
    flax = checkpoint(tmp_path)
    (tmp_path / "c.json").write_text(json.dumps(CONFIG))
    videos = [media.clip("b.mp4"), media.clip("vp9.webm")]
    options = ["-q", "--q-group-size", 32, "--q-budget", 5.5, "--calibration", *videos]
    options += ["--q-layer", f"{TOKENS}=none", "--q-layer", "text_encoder=6"]
    common = [flax, "--config", tmp_path / "c.json", "--dtype", "float16"]
    assert run("convert", *common, "-o", tmp_path / "q", *options) == 0
    (tmp_path / "again").mkdir()
    model = vp.load_model(directory(tmp_path / "again"))
    said = {TOKENS: False, "text_encoder": 6}
    model.set_dtype(vp.load_model(tmp_path / "q").dtype)
    vp.quantize(model, None, 32, layers=said, budget_bits=5.5, calibration=videos)
    assert same_parameters(vp.load_model(tmp_path / "q"), model)
    assert read_config(tmp_path / "q")["quantization"]["budget_bits"] == 5.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([TINY, "-o", "m", "-q"], "a group size of 64 does not divide 96, the width of "),
        ([TINY, "-o", "m", "-q"], "; 32 would"),
        ([TINY, "-q"], "there is no output; name it with -o"),
        ([TINY, "-o", "m", "--q-bits", "8"], "--q-bits has no effect without -q"),
        ([TINY, "-o", "m", "--calibration", "a"], "--calibration has no effect without -q"),
        ([TINY, "-o", "m", "-q", "--q-bits", "9"], "bits is 9; expected one of 2, 3, 4, 5, 6, 8"),
        ([TINY, "-o", "m", "-q", "--q-mode", "int4"], "mode is 'int4'; expected one of affine"),
        ([TINY, "-o", "m", "-q", "--q-budget", "5"], "budget_bits and calibration go together"),
        ([TINY, "-o", "m", "-q", "--q-layer", "text_encoder"], "expected PATH=BITS, such as text_"),
        ([TINY, "-o", "m", "-q", "--verify", "a"], "--verify compares with Flax to rounding"),
        ([TINY, "-o", "m", "--dequantize"], "is not quantized, so there is nothing to dequantize"),
        ([TINY, "-o", "m", "--dequantize", "--config", "a"], "--config has no effect with --deq"),
        ([TINY, "-o", "m", "-q", "--tokenizer", "a"], "tokenizer (--tokenizer) has no effect on"),
        ([TINY, "-o", "m", "-q", "--dtype", "int8"], "dtype is 'int8'; expected one of"),
        ([TINY, "-o", "m", "-q", "--q-budget", "5", "--calibration", "no.mp4"], "no.mp4"),
        (["a.npz", "-o", "m", "-q"], "there is no checkpoint a.npz"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[object],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("convert", *arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1 and printed.out == ""
    assert list(tmp_path.iterdir()) == []


def test_quantizing_is_not_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for loudness in (["-q", "convert"], ["convert", "--quiet"]):
        output = tmp_path / loudness[-1]
        assert run(*loudness, TINY, "-o", output, "-q", "--q-group-size", 32) == 0
        assert "quantization" in read_config(output)


def test_commands_on_a_quantized_model(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, found = media.clip("b.mp4"), {}
    for name, model in (("whole", TINY), ("quantized", tiny)):
        output = tmp_path / f"{name}.npz"
        assert run("embed", clip, "-o", output, "--model", model, "--dtype", "float32") == 0
        [found[name]] = read_features(output)["embedding"]
    assert 0.999 < found["whole"] @ found["quantized"] < 1 - 1e-7
    capsys.readouterr()
    texts = ("--text", "a red star moves left", "a blue circle")
    assert run("similarity", "--video", clip, *texts, "--model", tiny, "--json") == 0
    pages = tmp_path / "list.csv"
    pages.write_text(f"video,caption\n{clip},a red star\n{media.clip('vp9.webm')},a blue circle\n")
    assert run("evaluate", "retrieval", "--data", pages, "--model", tiny) == 0
    library = tmp_path / "library"
    assert run("index", clip, "--library", library, "--model", tiny) == 0
    assert run("search", "a red star", "--library", library, "--json") == 0
    assert "b.mp4" in capsys.readouterr().out


def test_where_it_comes_from_is_a_path_and_no_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    """A folder in a folder is written as you/name is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/small").symlink_to(tiny)
    assert run("convert", "runs/small", "-o", "whole", "--dequantize") == 0
    found = read_config(tmp_path / "whole")
    assert found["source"]["dequantized_from"] == str(tmp_path / "runs/small")
    shared = public(found)["source"]
    assert shared["dequantized_from"] == "small" and shared["quantized_from"] == TINY


def test_an_id_keeps_its_revision() -> None:
    assert base_name("you/model", "v2") == base_name("you/model@v2") == "you/model@v2"
    assert base_name("you/model") == "you/model"
