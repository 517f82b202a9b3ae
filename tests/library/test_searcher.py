"""Searching drawn clips with the small model, by words, clips and pictures."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from library_media import world
from PIL import Image

import videoprism_mlx as vp
from videoprism_mlx.demo.captions import name_one, summary
from videoprism_mlx.demo.scenes import MOTIONS
from videoprism_mlx.errors import InputError, LibraryError
from videoprism_mlx.features.text import embed_texts
from videoprism_mlx.library import searcher as module
from videoprism_mlx.library.filters import Where
from videoprism_mlx.library.library import Library
from videoprism_mlx.library.searcher import Searcher
from videoprism_mlx.models import DEMO_MODEL


@pytest.fixture(scope="module")
def searcher() -> Searcher:
    """Of the drawn clips."""
    return Searcher(world().library)


@pytest.fixture(scope="module")
def clips() -> Where:
    """The clips, without the long video."""
    return Where(world().folder / "clips")


def test_a_right_clip_is_first_for_each_motion(searcher: Searcher, clips: Where) -> None:
    wrong = []
    for motion in MOTIONS:
        [found] = searcher.search(name_one("motion", motion), 1, clips)
        if world().scene_of(found).things[0].motion != motion:
            wrong.append(motion)
    assert wrong == []


def test_the_moment_of_a_caption_in_a_long_video(searcher: Searcher) -> None:
    """Each scene lasts 6 s, and a window 4."""
    inside = Where(world().row)
    right = 0
    for number, scene in enumerate(world().row_scenes):
        [found] = searcher.search(summary(scene), 1, inside)
        right += found.start < 6 * number + 6 and found.end > 6 * number
    assert right >= 9


def test_a_text_has_the_embedding_of_the_model(searcher: Searcher) -> None:
    model, processor = vp.load(DEMO_MODEL, dtype="float32")
    red, star = embed_texts(model, processor, ["a red thing", "a star"])
    np.testing.assert_allclose(searcher.embed("a red thing"), red, atol=1e-6)
    expected = 2 * red - star
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(searcher.embed("2:a red thing - a star"), expected, atol=1e-6)


def test_a_clip_finds_itself_and_others_without_itself(searcher: Searcher, clips: Where) -> None:
    clip = world().clips[3]
    model, processor = vp.load(DEMO_MODEL, dtype="float32")
    [encoded] = vp.encode(model, processor, [clip])
    np.testing.assert_allclose(searcher.embed(str(clip)), encoded.features["embedding"], atol=1e-6)
    [first, *others] = searcher.search(str(clip), 4, clips)
    assert (first.path, first.score) == (str(clip), pytest.approx(1, abs=1e-5))
    like = searcher.search(searcher.moment_vector(first.id, first.number), 4, clips)
    assert [each.path for each in like] == [str(clip), *(each.path for each in others)]


def test_the_span_of_a_video(searcher: Searcher) -> None:
    """A window of the long video, named by its times, finds itself."""
    row = world().row
    [found] = searcher.search(f"{row}@8-12", 1, Where(row))
    assert (found.number, found.score) == (2, pytest.approx(1, abs=1e-5))
    assert found.start <= 8 and found.end >= 12


def test_a_long_clip_is_the_average_of_its_windows(searcher: Searcher) -> None:
    row, library = world().row, searcher.tables
    [row_id] = [each["id"] for each in library.rows() if each["path"] == str(row.resolve())]
    windows = [searcher.moment_vector(row_id, number) for number in (0, 1)]
    expected = np.sum(windows, axis=0)
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(searcher.embed(f"{row}@0-8"), expected, atol=1e-5)


def test_a_picture_is_a_still_clip(searcher: Searcher, tmp_path: Path) -> None:
    clip = world().clips[-1]  # Of a thing that does not move.
    assert world().scenes[-1].things[0].motion == "still"
    frame = vp.read_video(clip, 1, size=None)[0]
    Image.fromarray(np.round(255 * frame).astype(np.uint8)).save(tmp_path / "still.png")
    vector = searcher.embed(str(tmp_path / "still.png"))
    assert vector @ searcher.embed(str(clip)) > 0.97
    [found] = searcher.search(vector, 1)
    assert found.path == str(clip)


def test_what_is_not_there(searcher: Searcher) -> None:
    with pytest.raises(LibraryError, match="no moment 0 of a video 'x'"):
        searcher.moment_vector("x", 0)
    with pytest.raises(InputError, match="is outside"):
        searcher.embed(f"{world().clips[0]}@100-200")
    with pytest.raises(LibraryError, match="there is no library at"):
        Searcher(world().folder / "nothing")


def test_a_moment_has_a_picture(searcher: Searcher) -> None:
    import io

    [found] = searcher.search("a red thing", 1)
    with Image.open(io.BytesIO(searcher.picture(found.id, found.number))) as picture:
        assert picture.format == "JPEG" and picture.width > 16


def test_threads_find_the_same_and_embed_each_query_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = [name_one("motion", motion) for motion in MOTIONS]
    expected = [Searcher(world().library).search(text, 3) for text in texts]
    shared, calls = Searcher(world().library), []

    def counted(*arguments: object) -> np.ndarray:
        calls.append(arguments[2])
        return embed_texts(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "embed_texts", counted)
    found: dict[int, list] = {}

    def run(number: int) -> None:
        found[number] = [shared.search(text, 3) for text in texts]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(4)] == [expected] * 4
    assert len(calls) == len(texts)
    monkeypatch.setattr(module, "KEPT", 2)
    for text in ("a red thing", "a star", "a heart"):
        shared.embed(text)
    assert len(shared._known) == 2


def test_a_library_searches(clips: Where) -> None:
    library = Library(world().library)
    found = library.search("something spinning", k=2, where=clips)
    assert found == Searcher(world().library).search("something spinning", 2, clips)
    assert list(found[0].as_json()) == ["video", "path", "start", "end", "score"]


TOUCHED = """
import sys
import mlx.core as mx
from mlx.utils import tree_flatten
import videoprism_mlx
from videoprism_mlx.library.searcher import Searcher
searcher = Searcher(sys.argv[1])
searcher.search("something spinning", 1)
print(" ".join(name for name in sys.modules if name.startswith(sys.argv[2])))
mx.clear_cache()
model, _ = searcher._loaded
sizes = {name: sum(one.nbytes for _, one in tree_flatten(getattr(model, name).parameters()))
         for name in ("text_encoder", "vision_encoder")}
before = mx.get_active_memory()
searcher._worker.submit(mx.eval, model.vision_encoder.parameters()).result()
print(mx.get_active_memory() - before, sizes["vision_encoder"])
"""


def test_a_text_reads_no_video_encoder_and_imports_no_client_of_a_server() -> None:
    """The video encoder's parameters take up memory only when they are asked for."""
    package = "lance_namespace_urllib3_client.api"
    command = [sys.executable, "-c", TOUCHED, str(world().library), package]
    modules, sizes = subprocess.run(
        command, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert modules == ""
    read_later, size = map(int, sizes.split())
    assert read_later >= 0.95 * size
