"""A library's record on the Hub: with it, others make a library that compares. No path is in it."""

import json
import shlex
import shutil
from pathlib import Path

import media
import numpy as np
import pytest
from hub_console import Console
from hub_standin import Hub

import videoprism_mlx as vp
from videoprism_mlx.errors import LibraryError
from videoprism_mlx.hub.library import public_source
from videoprism_mlx.models import DEMO_MODEL

pytest.importorskip("lancedb")

CLIP = "b.mp4"


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of one video."""
    folder = tmp_path_factory.mktemp("indexed")
    shutil.copyfile(media.clip(CLIP), folder / CLIP)
    vp.Library(folder / "library").add(folder / CLIP, DEMO_MODEL, window=4, stride=2, fps=8)
    return folder


def test_the_record_makes_the_same_library(
    console: Console, hub: Hub, indexed: Path, tmp_path: Path
) -> None:
    """The command on the card, on the same video, makes the same moments."""
    said = console.run("upload", indexed / "library", "you/record", "--license", "cc0-1.0")
    assert said.code == 0 and "datasets/you/record: 2 files" in said.out
    files = hub.files("you/record", kind="dataset")
    assert files.keys() == {"README.md", "record.json", ".gitattributes"}
    record = json.loads(files["record.json"])
    assert record["source"]["model"] == DEMO_MODEL and record["videos"] == 1
    card = files["README.md"].decode()
    assert "license: cc0-1.0" in card and "moments.parquet" not in card
    command = card.split("```bash\n")[1].split("```")[0].replace("\\\n", " ")
    words = shlex.split(command)[1:]
    words[words.index("FOLDER")] = str(indexed / CLIP)
    words[words.index("new-library")] = str(tmp_path / "new")
    assert console.run(*words).code == 0
    made, ours = vp.Library(tmp_path / "new").info(), vp.Library(indexed / "library").info()
    for name in ("preprocessing", "model", "source", "moments"):
        assert made[name] == ours[name]


def test_the_embeddings(console: Console, hub: Hub, indexed: Path, tmp_path: Path) -> None:
    """Those of `library export`, without the paths. Without the option they are removed again."""
    import pyarrow.parquet as pq

    library = indexed / "library"
    assert console.run("upload", library, "you/moments", "--embeddings").code == 0
    files = hub.files("you/moments", kind="dataset")
    assert str(indexed).encode() not in b"".join(files.values())
    (tmp_path / "moments.parquet").write_bytes(files["moments.parquet"])
    table = pq.read_table(tmp_path / "moments.parquet")
    assert table.column_names == ["video", "start", "end", "embedding"]
    vp.Library(library).export(tmp_path / "ours.npz")
    with np.load(tmp_path / "ours.npz") as ours:
        assert table["video"].to_pylist() == ours["video"].tolist() == [CLIP] * len(table)
        np.testing.assert_array_equal(np.stack(table["embedding"].to_numpy()), ours["embedding"])
        np.testing.assert_array_equal(table["start"].to_numpy(), ours["start"])
    card = files["README.md"].decode()
    code = card.split("```python\n")[1].split("```")[0]
    console.python(code.replace("print(", "result = ("))
    assert console.run("upload", library, "you/moments").code == 0
    assert "moments.parquet" not in hub.files("you/moments", kind="dataset")


def test_a_model_that_others_do_not_have() -> None:
    for source, said in (
        ({"model": "/home/me/model"}, "was made with /home/me/model, a directory that others do"),
        ({"model": DEMO_MODEL, "adapters": "/home/me/a"}, "was made with /home/me/a, a directory"),
        ({"model": None}, "was made with a model in memory, which others do not have; name the"),
    ):
        with pytest.raises(LibraryError, match=said):
            public_source("here", source, None)
    named = public_source("here", {"model": "/home/me/model", "dtype": None}, "you/model")
    assert named["model"] == "you/model"
