"""One library, one model, one way of reading."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from drawn_clips import add, contents, copy_clips, model

import videoprism_mlx as vp
from videoprism_mlx.cli.shared import DEFAULT_MODEL
from videoprism_mlx.errors import InputError, LibraryError
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.library import library as home
from videoprism_mlx.library.model import load_recorded, recorded_model
from videoprism_mlx.library.storage import connect
from videoprism_mlx.library.table import RECORD, VIDEOS, Tables
from videoprism_mlx.models import DEMO_MODEL, SHIPPED


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    return copy_clips(tmp_path / "clips", 1)


def test_the_record_says_how_the_library_was_made(tmp_path: Path, clips: Path) -> None:
    vp.Library(tmp_path / "a").add(clips, DEMO_MODEL, progress=False)
    record = Tables.open(tmp_path / "a").record
    assert record["dimension"] == 96
    files = {"weights": sha256(SHIPPED[DEMO_MODEL] / "model.safetensors")}
    source = {"model": DEMO_MODEL, "dtype": None, "adapters": None, "files": files}
    assert record["source"] == source
    assert record["model"]["name"] == DEMO_MODEL and record["model"]["dtype"] == "float16"
    windows = {"window": 4, "stride": 4, "fps": 1.0, "partial": False}
    sizing = {"size": 64, "resize": "stretch", "resample": "area", "reader": "ffmpeg"}
    assert record["preprocessing"] == windows | sizing
    loaded, processor = load_recorded(record)
    assert (loaded.takes_text, processor.size) == (True, 64)


def test_later_runs_use_the_librarys_settings(tmp_path: Path, clips: Path) -> None:
    library = tmp_path / "library"
    vp.Library(library).add(clips, DEMO_MODEL, dtype="float32", fps=2, window=3, progress=False)
    copy_clips(clips, 1, first=1)
    assert vp.Library(library).add(clips, progress=False).encoded == 1
    copy_clips(clips, 1, first=2)
    same = dict(fps=2.0, window=3, stride=3, dtype="float32", size=64, partial=False)
    assert vp.Library(library).add(clips, DEMO_MODEL, **same, progress=False).encoded == 1
    copy_clips(clips, 1, first=3)
    assert add(library, clips).encoded == 1  # The same weights, loaded by the caller.
    add(tmp_path / "fresh", clips, fps=2, window=3)
    assert contents(library) == contents(tmp_path / "fresh")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (dict(window=8), "preprocessing.window was 4 and is now 8"),
        (dict(fps=2), "preprocessing.fps was 1.0 and is now 2.0"),
        (dict(stride=1), "preprocessing.stride was 4 and is now 1"),
        (dict(size=80), "preprocessing.size was 64 and is now 80"),
        (dict(partial=True), "preprocessing.partial was False and is now True"),
        (dict(decoding=vp.Decoding(tone_map=True)), "tone_map was None and is now True"),
        (dict(dtype="bfloat16"), "model.dtype was float32 and is now bfloat16"),
    ],
)
def test_other_settings_are_refused(
    settings: dict[str, object], said: str, tmp_path: Path, clips: Path
) -> None:
    vp.Library(tmp_path / "a").add(clips, DEMO_MODEL, dtype="float32", progress=False)
    with pytest.raises(LibraryError, match=r"its model is videoprism_lvt_demo_tiny") as error:
        vp.Library(tmp_path / "a").add(clips, progress=False, **settings)
    assert said in str(error.value)


def test_another_model_is_refused(tmp_path: Path, clips: Path, searchable: Path) -> None:
    add(tmp_path / "library", clips)
    with pytest.raises(LibraryError, match=r"model\.parameters was"):
        vp.Library(tmp_path / "library").add(clips, searchable, progress=False)


def test_weights_that_changed_in_their_place(tmp_path: Path, clips: Path) -> None:
    """The same model directory holds other weights now: neither `add` nor `search` uses them."""
    directory, library = tmp_path / "model", tmp_path / "library"
    shutil.copytree(SHIPPED[DEMO_MODEL], directory)
    vp.Library(library).add(clips, directory, progress=False)
    weights = directory / "model.safetensors"
    shutil.copy(weights, tmp_path / "earlier")
    arrays = {name: np.array(array) for name, array in mx.load(str(weights)).items()}
    again = {name: mx.array(array) for name, array in reversed(arrays.items())}
    mx.save_safetensors(str(weights), again, {"written": "anew"})  # Another file, the same values.
    assert len(vp.Library(library).search("a red ball")) == 1
    arrays[min(arrays)] += 1
    mx.save_safetensors(str(weights), {name: mx.array(one) for name, one in arrays.items()})
    copy_clips(clips, 1, first=1)
    for use in (
        lambda: vp.Library(library).search("a red ball"),
        lambda: vp.Library(library).add(clips, progress=False),
    ):
        with pytest.raises(LibraryError, match=r"made with other weights than .*model has now"):
            use()
    shutil.copy(tmp_path / "earlier", weights)
    assert vp.Library(library).add(clips, progress=False).encoded == 1


def test_a_model_that_was_changed_in_memory(tmp_path: Path, clips: Path) -> None:
    """Its directory holds other weights, so that a later process cannot load it."""
    loaded, processor = vp.load(DEMO_MODEL, dtype="float32")
    library = vp.Library(tmp_path / "same")
    library.add(clips, (loaded, processor), progress=False)
    assert vp.Library(tmp_path / "same").search("a red ball")[0].path == str(*clips.iterdir())
    loaded.text_encoder.token_emb.weight = loaded.text_encoder.token_emb.weight + 1
    vp.Library(tmp_path / "other").add(clips, (loaded, processor), progress=False)
    loaded.directory = tmp_path / "removed"
    vp.Library(tmp_path / "gone").add(clips, (loaded, processor), progress=False)
    with pytest.raises(LibraryError, match=r"was made with a model in memory; give that model"):
        vp.Library(tmp_path / "other").search("a red ball")


def test_a_model_in_memory_that_nobody_can_load(tmp_path: Path, clips: Path) -> None:
    loaded, processor = vp.load(DEMO_MODEL)
    loaded.directory = None
    vp.Library(tmp_path / "a").add(clips, (loaded, processor), progress=False)
    with pytest.raises(LibraryError, match="made with a model in memory; give that model"):
        vp.Library(tmp_path / "a").add(clips, progress=False)


def test_a_model_that_cannot_search_is_refused_before_anything(
    tmp_path: Path, clips: Path, converted: Callable[[str], Path]
) -> None:
    library = vp.Library(tmp_path / "library")
    for name in ("videoprism_public_v1_base", converted("encoder_mild")):
        with pytest.raises(InputError, match="has no embedding"):
            library.add(clips, name, progress=False)
    with pytest.raises(InputError, match="expected 1 frame or more"):
        library.add(clips, DEMO_MODEL, window=0, progress=False)
    with pytest.raises(FileNotFoundError, match="no such file"):
        library.add(tmp_path / "nowhere", DEMO_MODEL, progress=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(vp.VideoError, match="no videos are there"):
        library.add(tmp_path / "empty", DEMO_MODEL, progress=False)
    assert not (tmp_path / "library").exists()


def test_the_usual_model_is_that_of_the_other_commands() -> None:
    assert home.DEFAULT_MODEL == DEFAULT_MODEL


def test_a_folder_that_holds_something_else(tmp_path: Path, clips: Path) -> None:
    for place in (clips, clips / "0.mp4"):
        with pytest.raises(LibraryError, match=r"0\.mp4"):
            vp.Library(place).add(clips, DEMO_MODEL, progress=False)
    assert [path.name for path in clips.iterdir()] == ["0.mp4"]


def test_a_library_of_a_later_version(tmp_path: Path, clips: Path) -> None:
    add(tmp_path / "library", clips)
    tables = Tables.open(tmp_path / "library")
    schema = tables.videos.schema.with_metadata({RECORD: json.dumps({"format": 2}).encode()})
    connect(tables.where).create_table(VIDEOS, schema=schema, mode="overwrite")
    before = sorted(tmp_path.rglob("*"))
    for use in (lambda one: one.add(clips, model()), vp.Library.info, vp.Library.verify):
        with pytest.raises(LibraryError, match=r"has format 2, .*: update videoprism_mlx"):
            use(vp.Library(tmp_path / "library"))
    assert sorted(tmp_path.rglob("*")) == before


def test_settings_that_were_recorded_are_read_back(tmp_path: Path, clips: Path) -> None:
    decoding = vp.Decoding(stream=0, tone_map=True)
    add(tmp_path / "library", clips, decoding=decoding, resize="crop", partial=True)
    record = Tables.open(tmp_path / "library").record
    reading = recorded_model("", record, model()).reading
    assert (reading.processor.decoding, reading.processor.resize) == (decoding, "crop")
    assert reading.partial
