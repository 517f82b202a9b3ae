"""Adapters, classifiers and tokenizers by their Hub id, and adapters that know their base."""

import json
import shutil
from pathlib import Path
from typing import Any

import media
import pytest
from adapting import with_random_adapters
from hub_console import Console
from hub_standin import Hub, Repository
from mlx.utils import tree_flatten

import videoprism_mlx as vp
from videoprism_mlx import cli
from videoprism_mlx.cli.program.parser import all_parsers
from videoprism_mlx.errors import CheckpointError
from videoprism_mlx.files.checksum import is_intact, with_checksum
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.models import DEMO_MODEL, SHIPPED
from videoprism_mlx.weights.directory import publish

EMBEDDING = """
import videoprism_mlx as vp
model, processor = vp.load(name, adapters=adapters)
result = vp.embed_texts(model, processor, ["a red ball"])[0].tolist()
"""

TEXT = ("--text", "a red ball", "a blue star")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return Path(shutil.copyfile(media.clip("b.mp4"), tmp_path / "clip.mp4"))


def adapters_of(base: str | Path, directory: Path, name: str | Path | None = None) -> Path:
    """Adapters that change a model, saved in a directory. They call their base `name`."""
    model = with_random_adapters(vp.load_model(base), rank=2)
    vp.save_adapters(model, directory, base if name is None else name)
    return directory


def test_adapters(console: Console, hub: Hub, tmp_path: Path, clip: Path) -> None:
    """From a directory and by their id, they give the same; the base need not be named."""
    local = adapters_of(DEMO_MODEL, tmp_path / "adapters")
    said = console.run("upload", local, "you/adapters")
    assert said.code == 0 and said.err.splitlines()[-1].endswith("--adapters you/adapters")
    card = hub.files("you/adapters")["README.md"].decode()
    assert "- lora\n" in card and 'vp.load(adapters="you/adapters")' in card
    assert f"| base | `{DEMO_MODEL}` |" in card and "rank 2, alpha 2" in card
    ours = console.python(EMBEDDING, name=None, adapters=str(local))
    assert console.python(EMBEDDING, name=None, adapters="you/adapters") == ours
    assert console.python(EMBEDDING, name=None, adapters="you/adapters@main") == ours
    assert console.python(EMBEDDING, name=DEMO_MODEL, adapters=None) != ours

    lines = [console.run("similarity", clip, *TEXT, "--json", "--adapters", each).out
             for each in (local, "you/adapters")]  # fmt: skip
    assert lines[0] == lines[1] != ""
    said = console.run("fuse", "--adapters", "you/adapters", "-o", tmp_path / "fused", "--json")
    assert json.loads(said.out)["base"] == DEMO_MODEL
    assert console.python(EMBEDDING, name=str(tmp_path / "fused"), adapters=None) == pytest.approx(
        ours, abs=1e-3  # Fused weights are rounded to float16.
    )  # fmt: skip


def test_adapters_of_a_directory(console: Console, hub: Hub, tmp_path: Path, tiny: Path) -> None:
    """Others do not have it: the base is uploaded, and named, and its weights are compared."""
    vp.save_model(vp.load_model(tiny), tmp_path / "base", tiny / "sentencepiece.model")
    local = adapters_of(tmp_path / "base", tmp_path / "adapters")
    said = console.run("upload", local, "you/lora")
    assert said.code == 2 and "a directory that others do not have: upload that model" in said.line
    assert console.run("upload", tmp_path / "base", "you/base").code == 0
    said = console.run("upload", local, "you/lora", "--base", "you/base")
    assert said.code == 0
    uploaded = json.loads(hub.files("you/lora")["adapter_config.json"])
    assert uploaded["base"]["name"] == "you/base" and is_intact(uploaded)
    assert str(tmp_path) not in str(hub.files("you/lora"))
    ours = console.python(EMBEDDING, name=None, adapters=str(local))
    assert console.python(EMBEDDING, name=None, adapters="you/lora") == ours
    noted = json.loads((local / "adapter_config.json").read_text())
    noted["base"]["weights"] = "0" * 64
    (local / "adapter_config.json").write_text(json.dumps(with_checksum(noted)))
    said = console.run("upload", local, "you/lora", "--base", "you/base")
    assert said.code == 2 and "cannot be added to you/base, whose have " in said.line
    assert len(hub.messages("you/lora")) == 2


def test_another_base(console: Console, tmp_path: Path, clip: Path) -> None:
    """Each command says it in one line, before weights are read."""
    adapters = adapters_of(DEMO_MODEL, tmp_path / "adapters")
    other = dict(vp.load_model(DEMO_MODEL).config, mlp_dim=256)
    vp.save_model(vp.get_model(other), tmp_path / "other")
    vp.save_model(vp.get_model(DEMO_MODEL), tmp_path / "drawn")
    for given, reason in (
        (tmp_path / "other", ": "),
        (tmp_path / "drawn", ", whose have "),
        ("videoprism_lvt_public_v1_base", ": that is another model"),
    ):
        for command in (("similarity", clip, *TEXT), ("fuse", "-o", tmp_path / "fused")):
            said = console.run(*command, "--model", given, "--adapters", adapters)
            assert said.code == 2
            assert said.line.startswith(
                f"videoprism-mlx: the adapters {adapters} were trained on {DEMO_MODEL}"
            )
            assert f", and cannot be added to {given}{reason}" in said.line
            assert said.line.endswith("Leave out the model (--model) to use theirs")
    with pytest.raises(CheckpointError, match="cannot be added to"):
        vp.load(tmp_path / "drawn", adapters=adapters)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "adapters", "clip.mp4", "drawn", "other",
    ]  # fmt: skip


def test_what_is_no_adapters(console: Console, hub: Hub, tmp_path: Path, clip: Path) -> None:
    assert console.run("upload", SHIPPED[DEMO_MODEL], "you/plain").code == 0
    said = console.run("similarity", clip, *TEXT, "--adapters", "you/plain")
    assert "could not fetch you/plain: it has no adapter_config.json; is it the" in said.line
    adapters_of(DEMO_MODEL, tmp_path / "adapters")
    assert console.run("upload", tmp_path / "adapters", "you/only-adapters").code == 0
    said = console.run("similarity", clip, *TEXT, "--model", "you/only-adapters")
    assert "could not fetch you/only-adapters: it has no config.json; is it the" in said.line


def test_revisions_in_commands(console: Console, hub: Hub, clip: Path, tiny: Path) -> None:
    """--revision and ID@NAME say the same; a directory has none."""
    for branch in ("main", "v2"):
        assert console.run("upload", tiny, "you/rev", "--revision", branch).code == 0
    named = console.run("info", "you/rev@v2")
    assert named.code == 2 and "is not on this machine" in named.line
    result = console.run("similarity", clip, *TEXT, "--model", "you/rev", "--revision", "v2")
    assert result.code == 0 and "cosine" in result.out
    assert console.run("info", "you/rev", "--revision", "v2", "--json").code == 0
    for arguments, said in (
        (("--model", "you/rev", "--revision", "v3"), "could not fetch you/rev@v3: it has no such"),
        (("--model", "you/rev@v2", "--revision", "v2"), "you/rev@v2 has a revision already"),
        (("--model", tiny, "--revision", "v2"), f"{tiny} is a local directory; leave it out"),
    ):
        refused = console.run("similarity", clip, *TEXT, *arguments)
        assert refused.code == 2 and said in refused.line
    with pytest.raises(ValueError, match="names one revision, and 'v3' is another"):
        vp.load_model("you/rev@v2", revision="v3")


def test_every_command_that_names_a_model_takes_a_revision() -> None:
    commands = [each._option_string_actions.keys() for each in all_parsers(cli.build_parser())]
    naming = [options for options in commands if "--model" in options]
    assert len(naming) >= 12 and all("--revision" in options for options in naming)


def test_a_classifier(console: Console, hub: Hub, tmp_path: Path, clip: Path) -> None:
    """With the names of its classes; where it was trained from is not said with a path."""
    classifier = vp.load_classifier(DEMO_MODEL, num_classes=2)
    labels = with_checksum({"labels": ["a | b", "c"], "multi_label": False})
    files = {"labels.json": json.dumps(labels), "metrics.json": '{"top1": 0.75, "loss": 0.5}'}
    folder = tmp_path / "classifier"
    folder.mkdir()
    publish(classifier, folder, files, {"trained_from": str(SHIPPED[DEMO_MODEL])})
    assert console.run("upload", folder, "you/classes").code == 0
    uploaded = hub.files("you/classes")
    assert "metrics.json" not in uploaded and "labels.json" in uploaded
    config = json.loads(uploaded["config.json"])
    assert config["source"] == {"trained_from": "model"} and is_intact(config)
    card = uploaded["README.md"].decode()
    assert "pipeline_tag: video-classification" in card and "base_model" not in card
    assert "| 2 classes | a \\| b, c |" in card and "| top-1 accuracy | 0.75 |" in card
    assert "names no licence" in console.run("upload", folder, "you/classes").err
    said = console.run("classify", clip, "--model", "you/classes", "--json")
    names = {each["label"] for each in json.loads(said.out)["labels"]}
    assert names == {"a | b", "c"}


def test_a_base_that_only_looks_like_an_id(console: Console, hub: Hub, tiny: Path) -> None:
    """A folder that was there when the model was trained is not named as a base on the Hub."""
    assert console.run("upload", tiny, "you/start").code == 0
    config = json.loads((tiny / "config.json").read_text())
    del config["crc32"]
    for name, is_there in (("runs/start", False), ("you/start@main", True)):
        described = config | {"source": {"trained_from": name}}
        (tiny / "config.json").write_text(json.dumps(described))
        assert console.run("upload", tiny, "you/tuned").code == 0
        card = hub.files("you/tuned")["README.md"].decode()
        assert ("base_model: you/start\n" in card) == ("The base model is" in card) == is_there


def test_tokenizers(console: Console, hub: Hub, tiny: Path) -> None:
    """Of a model, and of a repository with nothing else; no weights are downloaded."""
    ids = "from videoprism_mlx import load_text_tokenizer as load\n"
    ids += "result = load(name, revision).to_int('a ball')"
    ours: Any = vp.load_text_tokenizer(tiny).to_int("a ball")
    assert console.run("upload", tiny, "you/words-of-a-model").code == 0
    asked = len(hub.asked)
    assert console.python(ids, name="you/words-of-a-model", revision="main") == ours
    assert not any("GET" in each and "safetensors" in each for each in hub.asked[asked:])
    alone = hub.repositories["model", "you/alone"] = Repository(False, "you")
    alone.commit("main", {"sentencepiece.model": (tiny / "sentencepiece.model").read_bytes()}, "x")
    assert console.python(ids, name="you/alone", revision=None) == ours
    assert console.python(ids, name="you/alone@main", revision=None) == ours

    vp.convert.draw_checkpoint(DEMO_MODEL, tiny / "drawn.npz")
    command = ("convert", tiny / "drawn.npz", "--config", DEMO_MODEL, "-o", tiny / "converted")
    assert console.run(*command, "--tokenizer", "you/alone").code == 0
    beside = tiny / "converted" / "sentencepiece.model"
    assert beside.read_bytes() == (tiny / "sentencepiece.model").read_bytes()


def test_a_newcomer_quantizes_uploads_and_uses_it(
    console: Console, hub: Hub, tmp_path: Path
) -> None:
    """In three commands; or in two, as quantizing can upload what it has written."""
    said = console.run("convert", DEMO_MODEL, "-o", tmp_path / "small", "-q", "--q-bits", "8",
                       "--q-group-size", "32")  # fmt: skip
    assert said.code == 0, said.err
    assert console.run("upload", tmp_path / "small", "you/small").code == 0
    texts = ("--text", "a red star", "a blue circle", "--json")
    clip = media.clip("b.mp4")
    used = console.run("similarity", clip, *texts, "--model", "you/small")
    here = console.run("similarity", clip, *texts, "--model", tmp_path / "small")
    assert used.code == 0 and used.out == here.out
    card = hub.files("you/small")["README.md"].decode()
    assert "| parameters | 908,832 |" in card and "- 8-bit\n" in card
    assert f"Quantized from {DEMO_MODEL}: 8 bits in groups of 32" in card

    output = ("-o", tmp_path / "four", "-q", "--q-group-size", "32", "--upload-repo", "you/four")
    said = console.run("convert", DEMO_MODEL, *output)
    assert said.code == 0 and f"{hub.address}/you/four: 5 files" in said.out
    assert "4 bits in groups of 32" in hub.files("you/four")["README.md"].decode()
    said = console.run("convert", DEMO_MODEL, "-o", tmp_path / "no", *output[2:], token="hf_other")
    assert "you/four is not yours" in said.line and not (tmp_path / "no").exists()
    said = console.run("convert", DEMO_MODEL, *output[2:], "-o", tmp_path / "no", "--to", "flax")
    assert "--to has no effect with -q and --dequantize" in said.line


def test_convert_and_upload(console: Console, hub: Hub, tmp_path: Path) -> None:
    """In one command; whether the user may upload is asked before anything is converted."""
    reference = Path(__file__).parents[1] / "reference" / "encoder"
    command = ("convert", reference / "checkpoint.npz", "--config", reference / "config.json")
    output = ("-o", tmp_path / "converted", "--upload-repo", "you/converted")
    said = console.run(*command, *output, token="hf_other")
    assert said.code == 2 and "you/converted is not yours" in said.line
    assert not (tmp_path / "converted").exists()
    said = console.run(*command, *output, "--verify", reference / "plain.npz")
    assert said.code == 0 and f"{hub.address}/you/converted: 3 files" in said.out
    card = hub.files("you/converted")["README.md"].decode()
    assert "- Converted from the Flax checkpoint `checkpoint.npz`, SHA-256" in card
    assert "outputs of its modules agree with saved ones of the official Flax model" in card
    assert sha256(tmp_path / "converted" / "model.safetensors") in card
    names = {name for name, _ in tree_flatten(vp.load_model(tmp_path / "converted").parameters())}
    found = "import videoprism_mlx as vp; from mlx.utils import tree_flatten\n"
    found += "result = [n for n, _ in tree_flatten(vp.load_model('you/converted').parameters())]"
    assert set(console.python(found)) == names
    shutil.rmtree(tmp_path / "converted")
    hub.dies_at = "/commit/"
    said = console.run(*command, "-o", tmp_path / "converted", "--upload-repo", "you/second")
    hub.dies_at = None
    how = f"`videoprism-mlx upload {tmp_path / 'converted'} you/second` uploads it"
    assert said.code == 2 and how in said.err.splitlines()[0]
    said = console.run("convert", tmp_path / "converted", "-o", tmp_path / "x.npz", *output[2:])
    assert "is a model directory already: `videoprism-mlx upload" in said.line
