"""`videoprism-mlx cache`: what is kept, how large it is, and what --prune removes."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_console import Console
from hub_standin import Hub, Repository

from videoprism_mlx.convert.transformers import mlx_to_transformers
from videoprism_mlx.files.atomic import PARTIAL
from videoprism_mlx.models import RELEASES

NAME = "videoprism_public_v1_base"


# huggingface_hub reads the place of its cache once.
MOVE = """
import os
from huggingface_hub import constants
from huggingface_hub.utils import _cache_manager
before = os.environ["VIDEOPRISM_MLX_CACHE"], constants.HF_HUB_CACHE
os.environ["VIDEOPRISM_MLX_CACHE"] = own
constants.HF_HUB_CACHE = _cache_manager.HF_HUB_CACHE = hub
result = before
"""


@pytest.fixture
def caches(console: Console, tmp_path: Path) -> Iterator[Path]:
    """Empty caches for the process: of this package, and Hugging Face's."""
    before = console.python(MOVE, own=str(tmp_path / "own"), hub=str(tmp_path / "hf"))
    yield tmp_path
    console.python(MOVE, own=before[0], hub=before[1])


def ended() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def write(path: Path, size: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    return path


def download(cache: Path, repository: str, commit: str, files: dict[str, bytes]) -> Path:
    """What huggingface_hub keeps of a commit."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    for name, content in files.items():
        blob = write(folder / "blobs" / f"{commit[:8]}{name}")
        blob.write_bytes(content)
        snapshot = folder / "snapshots" / commit / name
        snapshot.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(blob, snapshot)
    return folder


def fill(caches: Path) -> dict[str, Path]:
    """Files of all kinds, by what they are."""
    own, release = caches / "own", RELEASES[NAME]
    here = f"{PARTIAL}{socket.gethostname()}-"
    official = download(
        caches / "hf", release.repository, "a" * 40, {release.filename: bytes(5_000_000)}
    )
    write(official / "refs" / "main").write_text("a" * 40)
    ours = download(caches / "hf", "you/m", "b" * 40, {"config.json": b'{"model": "TextEncoder"}'})
    write(ours / "refs" / "main").write_text("c" * 40)
    files = {"config.json": b'{"model": "TextEncoder", "x": 1}'}
    download(caches / "hf", "you/m", "c" * 40, files)
    other = download(caches / "hf", "someone/bert", "d" * 40, {"config.json": b'{"hidden": 3}'})
    gone = write(own / "checked" / "old.json")
    gone.write_text(json.dumps({"path": str(caches / "gone.safetensors")}))
    valid = write(own / "checked" / "new.json")
    valid.write_text(json.dumps({"path": str(valid)}))
    return {
        "official": official,
        "gone": gone,
        "valid": valid,
        "ours": ours,
        "other": other,
        "left": write(own / "models" / f".x{here}{ended()}-12345678" / "model.safetensors"),
        "running": write(own / "models" / f".y{here}{os.getpid()}-12345678" / "model.safetensors"),
        "elsewhere": write(own / "models" / f".z{PARTIAL}another-host-1-12345678" / "model"),
        "converted": write(own / "models" / NAME / "config.json"),
        "features": write(own / "features" / "ab" / "cd" / "x.npy", 2_000_000),
        "mine": write(own / "my-own-folder" / f".file{here}{ended()}-1"),
    }


def test_what_is_kept(console: Console, caches: Path) -> None:
    """Each thing with its size; what is of others is not looked at."""
    assert console.run("cache", "--json").out == (
        json.dumps({"cache": str(caches / "own"), "kept": [], "removed": []}) + "\n"
    )
    assert console.run("cache").code == 0
    fill(caches)
    rows = json.loads(console.run("cache", "--json").out)
    assert rows["removed"] == []
    kept = {row["name"]: (row["kind"], row["bytes"]) for row in rows["kept"]}
    assert kept[NAME] == ("models", 1000)
    assert kept["features"] == ("features", 2_000_000)
    assert kept["google/videoprism-base-f16r288@main"] == ("hub", 5_000_000)
    assert kept["you/m@main"] == ("hub", 32) and kept["you/m@bbbbbbb"][0] == "hub"
    assert not any("bert" in name or "my-own" in name for name in kept)
    said = console.run("cache")
    assert "5.0 MB  google/videoprism-base-f16r288@main  converted already" in said.out
    assert "2.0 MB  features" in said.out and "not needed any more" in said.out


def test_prune_removes_what_was_listed_and_nothing_else(console: Console, caches: Path) -> None:
    """What is in use, of another machine, or of somebody else stays."""
    paths = fill(caches)
    listed = console.run("cache").out.split("not needed any more")[1]
    said = console.run("cache", "--prune")
    assert said.code == 0 and said.err == "5.0 MB removed\n"
    assert said.out.split("to remove")[1].splitlines()[1:] == listed.splitlines()[1:]
    stays = ("valid", "running", "elsewhere", "converted", "features", "other", "mine")
    assert all(paths[name].exists() for name in stays)
    assert not any(paths[name].exists() for name in ("official", "left", "gone"))
    assert len(list(paths["ours"].glob("snapshots/*"))) == 2  # Somebody may name the commit.
    again = console.run("cache", "--prune")
    assert (again.out, again.err) == ("", "there is nothing to remove\n")


def test_a_checkpoint_that_is_not_converted_stays(console: Console, caches: Path) -> None:
    paths = fill(caches)
    paths["converted"].unlink()
    assert console.run("cache", "--prune").code == 0
    assert paths["official"].exists()


def test_a_downloaded_model_is_kept(console: Console, hub: Hub, caches: Path, tiny: Path) -> None:
    """Of real downloads: the commit of a branch, and the one that it was at before."""
    name = "you/moved"
    load = "import videoprism_mlx as vp; vp.load_model('you/moved')"
    assert console.run("upload", tiny, name).code == 0
    console.python(load)
    (tiny / "words.txt").write_text("other words\n")
    assert console.run("upload", tiny, name).code == 0
    console.python(load)
    rows = json.loads(console.run("cache", "--prune", "--json").out)
    names = sorted(row["name"] for row in rows["kept"])
    assert names[1] == "you/moved@main" and len(names) == 2 and rows["removed"] == []


def test_converted_models_of_transformers(console: Console, caches: Path, tiny: Path) -> None:
    """By the name of their directory; those of files that have changed or are gone are removed."""
    theirs = caches / "theirs"
    mlx_to_transformers(tiny, theirs)
    load = f"import videoprism_mlx as vp; vp.load_model({str(theirs)!r})"

    def rows(*options: str) -> dict[str, list[str]]:
        found = json.loads(console.run("cache", "--json", *options).out)
        return {key: [row["name"] for row in found[key]] for key in ("kept", "removed")}

    console.python(load)
    assert rows("--prune") == {"kept": ["theirs"], "removed": []}
    os.utime(theirs / "model.safetensors", (1, 1))
    console.python(load)
    assert rows("--prune") == {"kept": ["theirs"], "removed": ["theirs"]}
    assert "models, converted" in console.run("cache").out
    theirs.rename(caches / "moved")
    assert "its files changed or are gone" in console.run("cache").out
    assert rows("--prune") == {"kept": [], "removed": ["theirs"]}
    assert not list((caches / "own" / "models").iterdir())


def test_a_model_of_transformers_on_the_hub(
    console: Console, hub: Hub, caches: Path, tiny: Path
) -> None:
    """What was noted before its weights came is not needed afterwards."""
    mlx_to_transformers(tiny, caches / "theirs")
    repository = hub.repositories["model", "you/kept"] = Repository(False, "you")
    files = {path.name: path.read_bytes() for path in (caches / "theirs").iterdir()}
    repository.commit("main", files, "theirs")
    console.python(
        "import videoprism_mlx as vp\n"
        "from videoprism_mlx.weights.loading import model_outline\n"
        "model_outline('you/kept'); vp.load_model('you/kept')"
    )
    found = json.loads(console.run("cache", "--prune", "--json").out)
    kept = [(row["name"], row["kind"]) for row in found["kept"]]
    assert kept == [("you/kept@main", "models"), ("you/kept@main", "hub")]
    assert len(found["removed"]) == 1 and found["removed"][0]["bytes"] < 20_000
    shutil.rmtree(caches / "hf")
    found = json.loads(console.run("cache", "--prune", "--json").out)
    assert (found["kept"], len(found["removed"])) == ([], 1)
