"""Uploads of models, with the real huggingface_hub and a stand-in of the Hub."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hub_console import Console
from hub_standin import Hub

import videoprism_mlx as vp
from videoprism_mlx.models import DEMO_MODEL
from videoprism_mlx.weights.directory import named_parameters

FILES = {"README.md", "config.json", "model.safetensors", "sentencepiece.model", "words.txt"}

# The bits of all parameters of a model, by its Hub id.
CHECKSUM_OF = """
import videoprism_mlx as vp
from videoprism_mlx.weights.identity import checksum
result = checksum(vp.load_model(name, revision=revision).parameters())
"""


def changed(directory: Path, factor: float = 0.5) -> Path:
    """The model with other weights, in the same directory."""
    model = vp.load_model(directory)
    arrays = {name: array * factor for name, array in named_parameters(model).items()}
    mx.eval(arrays)
    mx.save_safetensors(str(directory / "model.safetensors"), arrays)
    return directory


def test_three_commands(console: Console, hub: Hub, tiny: Path) -> None:
    """What is uploaded is found by its id, with the same bits, in one commit after the first."""
    said = console.run("upload", tiny, "you/three", "--license", "mit")
    assert said.code == 0
    assert re.fullmatch(rf"{hub.address}/you/three: 5 files, 1.8 MB, in commit \w{{7}}\n", said.out)
    assert said.line == "to use it: videoprism-mlx embed clips -o features.npz --model you/three"
    assert hub.files("you/three").keys() == {*FILES, ".gitattributes"}
    for path in tiny.iterdir():
        assert hub.files("you/three")[path.name] == path.read_bytes()
    assert hub.messages("you/three")[1:] == ["Upload model with videoprism_mlx 0.1.0"]

    ours = console.python(CHECKSUM_OF, name=str(tiny), revision=None)
    assert console.python(CHECKSUM_OF, name="you/three", revision=None) == ours
    words = "import videoprism_mlx as vp\n"
    words += "result = len(vp.load('you/three')[1].known_words.words)"
    assert console.python(words) == len((tiny / "words.txt").read_text().split())

    again = console.run("upload", tiny, "you/three", "--license", "mit", "--json")
    assert not json.loads(again.out)["is_new"] and len(hub.messages("you/three")) == 2


def test_the_card(console: Console, hub: Hub, tiny: Path) -> None:
    assert console.run("upload", tiny, "you/card", "--license", "mit").code == 0
    card = hub.files("you/card")["README.md"].decode()
    data = console.python(
        "from huggingface_hub import RepoCard; result = RepoCard(card).data.to_dict()", card=card
    )
    assert data == {
        "library_name": "mlx",
        "license": "mit",
        "pipeline_tag": "feature-extraction",
        "tags": ["mlx", "videoprism", "video", "video-text", "video-retrieval"],
    }
    assert "similarity clip.mp4 --text" in card and "--model you/card" in card
    assert 'vp.load("you/card")' in card and "| parameters | 908,832 |" in card
    assert str(tiny.parent) not in card and max(map(len, card.splitlines())) < 150


def test_a_second_revision(console: Console, hub: Hub, tiny: Path) -> None:
    """A branch of its own; what the new one lacks is removed; main stays as it is."""
    (tiny / "processor.json").write_text(vp.load(DEMO_MODEL)[1].as_json())
    assert console.run("upload", tiny, "you/two").code == 0
    (tiny / "processor.json").unlink()
    said = console.run(
        "upload", changed(tiny), "you/two", "--revision", "half", "--message", "Half of it"
    )
    assert said.code == 0 and "/you/two@half: " in said.out
    assert hub.messages("you/two")[-1] == "Half of it"
    assert "processor.json" in hub.files("you/two")
    assert "processor.json" not in hub.files("you/two", "half")
    first = console.python(CHECKSUM_OF, name="you/two", revision=None)
    second = console.python(CHECKSUM_OF, name="you/two", revision="half")
    assert second == console.python(CHECKSUM_OF, name=str(tiny), revision=None) != first
    assert console.python(CHECKSUM_OF, name="you/two@half", revision=None) == second
    oid = hub.repositories["model", "you/two"].refs["main"]
    assert console.python(CHECKSUM_OF, name="you/two", revision=oid) == first


def test_a_pull_request(console: Console, hub: Hub, tiny: Path) -> None:
    """Somebody else proposes a change, which is not on main."""
    assert console.run("upload", tiny, "you/open").code == 0
    before = dict(hub.files("you/open"))
    said = console.run(
        "upload", changed(tiny), "you/open", "--create-pr", "--json", token="hf_other"
    )
    assert json.loads(said.out)["pull_request"] == f"{hub.address}/you/open/discussions/1"
    assert hub.files("you/open") == before
    assert hub.files("you/open", "refs/pr/1")["model.safetensors"] != before["model.safetensors"]
    console.python(CHECKSUM_OF, name="you/open", revision="refs/pr/1")
    nothing = console.run("upload", tiny, "you/nothing", "--create-pr", token="hf_other")
    assert "there is no such repository" in nothing.line
    assert ("model", "you/nothing") not in hub.repositories


def test_private(console: Console, hub: Hub, tiny: Path) -> None:
    assert console.run("upload", tiny, "you/secret", "--private").code == 0
    assert hub.repositories["model", "you/secret"].private
    video = tiny / "clip.mp4"
    video.write_bytes(b"not looked at")
    command = ("embed", video, "-o", tiny / "x.npz", "--model", "you/secret")
    said = console.run(*command, token="hf_other")
    assert said.code == 2
    assert "could not fetch you/secret: there is no such repository, or it is private" in said.line
    assert console.run("upload", tiny, "you/public").code == 0
    refused = console.run("upload", tiny, "you/public", "--private")
    assert refused.code == 2 and "everybody can read it" in refused.line


@pytest.mark.parametrize("where", ["PUT /lfs", "/commit/main"])
def test_an_interrupted_upload(where: str, console: Console, hub: Hub, tiny: Path) -> None:
    """Nothing is visible. The same command finishes, and does not send again what has arrived."""
    changed(tiny, 0.25 if where == "PUT /lfs" else 0.125)
    name = f"you/stopped-{len(where)}"
    hub.dies_at = where
    with console.without_waiting():
        said = console.run("upload", tiny, name, "--license", "mit")
    hub.dies_at = None
    assert said.code == 2 and said.out == ""
    *retries, line = said.err.splitlines()
    assert line.startswith(f"videoprism-mlx: could not upload {name}: ")
    assert line.endswith("run the same command again, and what has arrived is not sent again")
    again = [f"the Hub does not answer about {name}; trying again"]
    assert retries == (again if where == "PUT /lfs" else [])
    assert hub.files(name).keys() == {".gitattributes"}

    asked = len(hub.asked)
    assert console.run("upload", tiny, name, "--license", "mit").code == 0
    assert hub.files(name)["model.safetensors"] == (tiny / "model.safetensors").read_bytes()
    sent = [each for each in hub.asked[asked:] if each.startswith("PUT")]
    assert len(sent) == (1 if where == "PUT /lfs" else 0)


def test_who_may_not(console: Console, hub: Hub, tiny: Path) -> None:
    assert console.run("upload", tiny, "you/mine").code == 0
    for token, repository, said in (
        ("hf_wrong", "you/mine", "could not upload you/mine: your token (HF_TOKEN, or that of"),
        ("hf_reader", "you/mine", "your token for the Hub may only read: log in with `hf auth"),
        (None, "you/mine", "there is no token for the Hub: log in with `hf auth login`, or"),
        ("hf_other", "you/mine", "you/mine is not yours: you write as other. Name a repository"),
        ("hf_you", "other/new", "other/new is not yours: you write as you or your-club. Name"),
        ("hf_you", "mine", "the repository is 'mine'; expected you/name, of letters"),
        ("hf_you", "you/my model", "the repository is 'you/my model'; expected you/name"),
        ("hf_you", "you/a--b", "the repository is 'you/a--b'; expected you/name"),
    ):
        refused = console.run("upload", tiny, repository, token=token)
        assert refused.code == 2 and refused.line.startswith(f"videoprism-mlx: {said}")
    assert len(hub.messages("you/mine")) == 2
    assert console.run("upload", tiny, "your-club/shared").code == 0


def test_it_is_checked_first(console: Console, hub: Hub, tiny: Path, tmp_path: Path) -> None:
    """What would not load is not uploaded: the Hub is asked for the user's name at most."""
    asked = len(hub.asked)
    with open(tiny / "model.safetensors", "r+b") as file:
        file.seek(-64, 2)
        file.write(np.full(32, np.nan, np.float16).tobytes())
    said = console.run("upload", tiny, "you/damaged")
    assert said.code == 2 and "holds NaN or infinite values" in said.line
    (tiny / "model.safetensors").unlink()
    assert "the weights are missing" in console.run("upload", tiny, "you/damaged").line
    assert "there is no directory" in console.run("upload", tmp_path / "x", "you/damaged").line
    assert "is not a model directory" in console.run("upload", tmp_path, "you/damaged").line
    (tmp_path / "model").mkdir()
    said = console.run("upload", shutil.copytree(tiny, tmp_path / "y"), "you/x", "--embeddings")
    assert "is no library; leave out --embeddings" in said.line
    assert set(hub.asked[asked:]) <= {"GET /api/whoami-v2"}
    assert len(hub.asked[asked:]) == 2


def test_a_card_of_the_user_is_kept(console: Console, hub: Hub, tiny: Path) -> None:
    """One in the directory, and one that was edited on the Hub. Ours is written anew."""

    def card() -> str:
        return hub.files("you/words")["README.md"].decode()

    assert console.run("upload", tiny, "you/words").code == 0
    assert console.run("upload", tiny, "you/words", "--license", "mit").code == 0
    assert "license: mit" in card() and "--model you/words" in card()
    ours = card()
    found = hub.repositories["model", "you/words"]
    edited = card().replace("## What it is", "## What I say it is")
    found.commit("main", {**hub.files("you/words"), "README.md": edited.encode()}, "edited")
    said = console.run("upload", changed(tiny), "you/words", "--license", "apache-2.0")
    assert said.code == 0 and "the README.md that is there was kept" in said.err
    assert card() == edited
    (tiny / "README.md").write_text("---\nlicense: bsd\n---\nMine.\n")
    said = console.run("upload", tiny, "you/words", "--json")
    assert card() == "---\nlicense: bsd\n---\nMine.\n"
    again = shutil.copytree(tiny, tiny.parent / "again")
    (again / "README.md").write_text(ours)  # Of another repository.
    assert console.run("upload", again, "you/words-again").code == 0
    assert "--model you/words-again" in hub.files("you/words-again")["README.md"].decode()
    result: dict[str, Any] = json.loads(said.out)
    assert result["license"] == "bsd" and result["kept_card"]
