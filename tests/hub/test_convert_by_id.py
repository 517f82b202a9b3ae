"""What is on the Hub in Transformers' format, or in another one, by its id."""

from pathlib import Path

from adapting import with_random_adapters
from hub_console import Console
from hub_standin import Hub, Repository

import videoprism_mlx as vp


def test_what_a_repository_holds_is_known_before_its_weights_are_fetched(
    console: Console, hub: Hub, tiny: Path, tmp_path: Path
) -> None:
    assert console.run("upload", tiny, "you/ours").code == 0
    config = b'{"model_type": "bert", "architectures": ["BertModel"]}'
    hub.repositories["model", "you/bert"] = Repository(False, "you")
    files = {"config.json": config, "model.safetensors": bytes(1000)}
    hub.repositories["model", "you/bert"].commit("main", files, "other")
    hub.asked.clear()
    said = console.run("convert", "you/bert", "-o", tmp_path / "no")
    assert said.code == 2 and "of another architecture: \"model_type\" is 'bert'" in said.line
    said = console.run("convert", "you/ours", "-o", tmp_path / "no")
    assert said.code == 2 and "needs no conversion: load it by its id" in said.line
    assert not [each for each in hub.asked if each.endswith("model.safetensors")]


def test_another_format_is_written_from_a_directory_here(
    console: Console, hub: Hub, tmp_path: Path
) -> None:
    """The repository may hold either format, and is not asked."""
    hub.asked.clear()
    for options in (("-o", tmp_path / "no.npz"), ("-o", tmp_path / "no", "--to", "transformers")):
        said = console.run("convert", "you/ours@v2", *options)
        assert said.code == 2
        assert "`hf download you/ours --revision v2 --local-dir DIRECTORY`" in said.line
    assert hub.asked == []


def test_a_model_of_transformers_is_quantized_by_its_id(
    console: Console, hub: Hub, tiny: Path, tmp_path: Path
) -> None:
    """With the revision that was named, in either way."""
    hub.repositories["model", "you/theirs"] = Repository(False, "you")
    vp.convert.mlx_to_transformers(tiny, tmp_path / "theirs")
    files = {path.name: path.read_bytes() for path in (tmp_path / "theirs").iterdir()}
    hub.repositories["model", "you/theirs"].commit("v2", files, "theirs")
    options = ("-q", "--q-group-size", "32", "-o")
    first = console.run("convert", "you/theirs@v2", *options, tmp_path / "a")
    assert first.code == 0, first.err
    assert (
        console.run("convert", "you/theirs", "--revision", "v2", *options, tmp_path / "b").code == 0
    )
    a, b = ((tmp_path / name / "config.json").read_text() for name in "ab")
    assert a == b and '"quantized_from": "you/theirs@v2"' in a
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (
        tmp_path / "b" / "model.safetensors"
    ).read_bytes()


def test_adapters_are_uploaded_for_the_model_they_were_trained_on(
    console: Console, hub: Hub, tiny: Path, tmp_path: Path
) -> None:
    """The checksum of weights that Transformers has stored is known once they are converted."""
    vp.convert.mlx_to_transformers(tiny, tmp_path / "theirs")
    files = {path.name: path.read_bytes() for path in (tmp_path / "theirs").iterdir()}
    weights = bytearray(files["model.safetensors"])
    weights[-4] ^= 1  # The last bit of a float32.
    for name, content in (("you/right", files["model.safetensors"]), ("you/wrong", bytes(weights))):
        hub.repositories["model", name] = Repository(False, "you")
        one = {**files, "model.safetensors": content}
        hub.repositories["model", name].commit("main", one, "theirs")
    model = with_random_adapters(vp.load_model(tmp_path / "theirs"), rank=2)
    vp.save_adapters(model, tmp_path / "adapters", tmp_path / "theirs")
    said = console.run("upload", tmp_path / "adapters", "you/added", "--base", "you/wrong", "-q")
    assert said.code == 2 and "cannot be added to you/wrong" in said.line
    assert ("model", "you/added") not in hub.repositories
    said = console.run("upload", tmp_path / "adapters", "you/added", "--base", "you/right")
    assert said.code == 0, said.err
