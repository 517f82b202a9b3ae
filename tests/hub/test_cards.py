"""What cards say, and what is left out of what is uploaded."""

import json
from pathlib import Path
from typing import Any

import pytest

import videoprism_mlx as vp
from videoprism_mlx.files.checksum import is_intact, with_checksum
from videoprism_mlx.hub.card import is_ours, metadata, model_card, stored_as, with_mark
from videoprism_mlx.hub.contents import Contents, examine, public
from videoprism_mlx.models import RELEASES
from videoprism_mlx.weights.hub import looks_like_repository, split_revision

OFFICIAL = "google/videoprism-lvt-base-f16r288"
CONVERTED = {"repository": OFFICIAL, "revision": "main", "file": "flax.npz", "sha256": "ab"}


def contents(directory: Path, **described: Any) -> Contents:
    """What is in a model directory whose config.json also says this."""
    config = json.loads((directory / "config.json").read_text()) | described
    config.pop("crc32", None)
    (directory / "config.json").write_text(json.dumps(config))
    return examine(directory)


def test_official_weights_have_their_licence_and_base(tiny: Path) -> None:
    official = contents(tiny, source=CONVERTED)
    data = metadata(official, None)
    assert data["license"] == "apache-2.0" and data["base_model"] == OFFICIAL
    assert data["base_model_relation"] is None and data["library_name"] == data["tags"][0] == "mlx"
    card = model_card(official, "you/model")
    assert f"[{OFFICIAL}](https://huggingface.co/{OFFICIAL})" in card
    assert "check --model" in card and "Apache-2.0, as the official weights" in card
    assert metadata(official, "mit")["license"] == "mit"


@pytest.mark.parametrize(
    "source",
    [
        {"base": OFFICIAL, "base_weights": "ab", "adapters": "cd"},
        {"trained_from": "videoprism_lvt_public_v1_base"},
    ],
)
def test_others_have_none_unless_it_is_named(tiny: Path, source: dict[str, str]) -> None:
    """Somebody's own weights are under no licence that this package could know."""
    tuned = contents(tiny, source=source)
    data = metadata(tuned, None)
    assert data["license"] is None and data["base_model"] == OFFICIAL
    assert data["base_model_relation"] == "finetune"
    assert "has not named a licence" in model_card(tuned, "you/model")
    assert "license: mit" in model_card(tuned, "you/model", licence="mit")


def test_quantized_weights_say_so(tiny: Path, tmp_path: Path) -> None:
    model = vp.quantize(vp.load_model(tiny), bits=4, group_size=32)
    vp.save_model(model, tmp_path / "small")
    quantized = contents(tmp_path / "small", source=CONVERTED)
    said = "4 bits in groups of 32; what is not quantized as float16"
    assert stored_as(quantized) == said
    data = metadata(quantized, None)
    assert data["base_model_relation"] == "quantized" and "4-bit" in data["tags"]
    assert f"- Quantized from {OFFICIAL}: {said}" in model_card(quantized, "you/model")


def test_paths_of_this_machine_are_left_out() -> None:
    described = with_checksum({
        "model": "X",
        "source": {"base": "/home/me/my-model", "adapters": "ab", "more": ["/a/b", 3, "~/c"]},
    })  # fmt: skip
    found = public(described)
    assert found["source"] == {"base": "my-model", "adapters": "ab", "more": ["b", 3, "c"]}
    assert is_intact(found) and found["crc32"] != described["crc32"]
    same = with_checksum({"model": "X", "source": CONVERTED})
    assert public(same) == same


def test_a_card_knows_whether_it_was_edited() -> None:
    card = with_mark("---\na: b\n---\n\nText.\n")
    assert is_ours(card) and is_ours(card + "\n")
    assert not is_ours(card.replace("Text", "Words")) and not is_ours("Text.") and not is_ours("")


def test_a_revision_after_an_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official = RELEASES["videoprism_public_v1_base"].repository
    for text, found in {
        "you/model@v1": ("you/model", "v1"),
        "you/model@refs/pr/1": ("you/model", "refs/pr/1"),
        "videoprism_public_v1_base@main": ("videoprism_public_v1_base", "main"),
        f"{official}@main": (official, "main"),
        "you/model": ("you/model", None),
        "you/model@": ("you/model@", None),
        "me@home/model": ("me@home/model", None),
        "./a/model@v1": ("./a/model@v1", None),
        "/data/model@v1": ("/data/model@v1", None),
    }.items():
        assert split_revision(text) == found
    monkeypatch.chdir(tmp_path)
    Path("you/model@v1").mkdir(parents=True)
    assert split_revision("you/model@v1") == ("you/model@v1", None)
    assert split_revision("you/other", "v2") == ("you/other", "v2")
    assert not looks_like_repository("a/b/c") and looks_like_repository("a/b")


def test_each_revision_of_a_released_model_is_found(released: Any, tmp_path: Path) -> None:
    """By its name with @, as with the argument."""
    calls = released("encoder")
    name = "videoprism_tiny"
    named, argument = vp.load_model(f"{name}@v1"), vp.load_model(name, revision="v1")
    assert named.directory == argument.directory and named.directory.name == f"{name}@v1"
    assert [call["revision"] for call in calls] == ["v1"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"base": "you/q", "base_weights": "a", "adapters": "b"}, "- Adapters were added"),
        ({"trained_from": "you/q"}, "- Trained from `you/q` with videoprism_mlx."),
    ],
)
def test_what_was_trained_on_quantized_weights_is_no_quantized_base(
    tiny: Path, tmp_path: Path, source: dict[str, str], said: str
) -> None:
    vp.save_model(vp.quantize(vp.load_model(tiny), group_size=32), tmp_path / "small")
    trained = contents(tmp_path / "small", source=source)
    data, card = metadata(trained, None), model_card(trained, "you/model")
    assert (data["base_model"], data["base_model_relation"]) == ("you/q", "finetune")
    assert "4-bit" not in data["tags"]
    made = card.split("## How it was made\n\n")[1].split("\n\n")[0]
    assert made.startswith(said) and len(made.splitlines()) == 1
    later = contents(tmp_path / "small", source={**source, "quantized_from": "fused"})
    data = metadata(later, None)
    assert data["base_model_relation"] == "finetune" and "4-bit" in data["tags"]
    assert "- Then quantized: 4 bits in groups of 32" in model_card(later, "you/model")


def test_dequantized_weights_say_so(tiny: Path) -> None:
    """They are not the official ones any more, whose figures they would miss."""
    source = {**CONVERTED, "quantized_from": OFFICIAL, "dequantized_from": "small"}
    for one in (source, {"quantized_from": OFFICIAL, "dequantized_from": "small"}):
        found = contents(tiny, source=one)
        card = model_card(found, "you/model")
        assert metadata(found, None)["base_model_relation"] == "quantized"
        made = card.split("## How it was made\n\n")[1].split("\n\n##")[0]
        assert made.splitlines()[-1].startswith("- Dequantized: ")
        assert "check --model" not in card
