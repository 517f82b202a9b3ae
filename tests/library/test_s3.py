"""A library in a bucket, on a server with the API of S3 that runs on this machine."""

import logging
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import videoprism_mlx as vp
from videoprism_mlx.demo.animation import draw_clip
from videoprism_mlx.demo.scenes import draw_scenes
from videoprism_mlx.demo.world import clip_random, write_clip
from videoprism_mlx.errors import LibraryError
from videoprism_mlx.library.neighbours import keep_up, with_neighbours
from videoprism_mlx.library.table import Tables
from videoprism_mlx.models import DEMO_MODEL

CLIPS = 6


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A server with an empty bucket called clips, and the variables that lead to it."""
    ThreadedMotoServer = pytest.importorskip("moto.server").ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT", address)
        patch.setenv("AWS_ALLOW_HTTP", "true")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_REGION", "us-east-1")
        urllib.request.urlopen(urllib.request.Request(f"{address}/clips", method="PUT")).close()
        yield address
    server.stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of drawn clips."""
    made = tmp_path_factory.mktemp("clips")
    for number, scene in enumerate(draw_scenes(CLIPS, 5, distinct=True)):
        write_clip(made / f"{number}.mp4", draw_clip(scene, clip_random(5, number)))
    return made


@pytest.fixture(scope="module")
def unbroken(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The moments of a local library that nothing disturbed."""
    library = vp.Library(tmp_path_factory.mktemp("local") / "library")
    library.add(folder, DEMO_MODEL, progress=False)
    return moments_of(library)


def moments_of(library: vp.Library) -> dict[str, Any]:
    """The embeddings of each video that is there, by its path: (N, D)."""
    tables = library.tables()
    found = {}
    for row in tables.current():
        condition = f"video = '{row['id']}' AND take = {row['take']}"
        moments = tables.moments.search().where(condition).limit(None).to_list()
        moments.sort(key=lambda moment: moment["number"])
        assert [moment["number"] for moment in moments] == list(range(row["moments"]))
        found[row["path"]] = np.stack([moment["embedding"] for moment in moments])
    return found


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for path, vectors in expected.items():
        np.testing.assert_allclose(found[path], vectors, atol=1e-6)


INDEX = f"""
import sys
import videoprism_mlx as vp
vp.Library(sys.argv[1]).add(sys.argv[2], {DEMO_MODEL!r}, progress=False)
"""

# As INDEX, but it kills itself between the moments and the row of a video, after some videos.
KILLED = f"""
import os, signal, sys
from videoprism_mlx.library.indexing.view import View
put, left = View.put, int(sys.argv[3])

def put_or_die(view, rows):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    put(view, rows)

View.put = put_or_die
{INDEX}
"""


def start_indexing(where: str, folder: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", INDEX, where, str(folder)])


def test_a_bucket_is_indexed_and_searched(
    endpoint: str, folder: Path, unbroken: dict[str, Any]
) -> None:
    library = vp.Library("s3://clips/one")
    assert library.add(folder, DEMO_MODEL, progress=False).encoded == CLIPS
    assert_same(moments_of(library), unbroken)
    assert library.verify().is_whole
    again = vp.Library("s3://clips/one").add(folder, progress=False)
    assert (again.videos, again.encoded) == (CLIPS, 0)
    tables = library.tables()
    for path, vectors in unbroken.items():
        query = tables.moments.search(vectors[0], vector_column_name="embedding")
        hit = with_neighbours(query, 1).to_list()[0]
        assert tables.rows(f"id = '{hit['video']}'")[0]["path"] == path


def test_an_index_by_neighbours_in_a_bucket(endpoint: str) -> None:
    import pyarrow as pa

    tables = Tables.create("s3://clips/many", {}, 16)
    random = np.random.default_rng(0)
    vectors = random.standard_normal((1000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    numbers = np.arange(len(vectors), dtype=np.int32)
    columns = {
        "video": ["a"] * len(vectors),
        "take": np.ones(len(vectors), np.int64),
        "number": numbers,
        "start": numbers * 4.0,
        "end": numbers * 4.0 + 4,
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 16),
        "picture": [b""] * len(vectors),
    }
    tables.add_moments(pa.table(columns, schema=tables.moments.schema))
    assert keep_up(tables, least=1000, group=100)
    again = Tables.open("s3://clips/many")
    query = again.moments.search(vectors[7], vector_column_name="embedding")
    nearest = np.argsort(-(vectors @ vectors[7]), kind="stable")[:5].tolist()
    assert [row["number"] for row in with_neighbours(query, 5).to_list()] == nearest


def test_there_is_no_such_bucket_or_library(endpoint: str) -> None:
    with pytest.raises(LibraryError, match=r"there is no library at s3://clips/none"):
        Tables.open("s3://clips/none")


@pytest.mark.slow
def test_two_index_one_folder_into_a_bucket(
    endpoint: str, folder: Path, unbroken: dict[str, Any]
) -> None:
    processes = [start_indexing("s3://clips/two", folder) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    library = vp.Library("s3://clips/two")
    library.add(folder, progress=False)
    assert_same(moments_of(library), unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("written", [1, 3])
def test_killed_while_indexing_into_a_bucket(
    written: int, endpoint: str, folder: Path, unbroken: dict[str, Any]
) -> None:
    where = f"s3://clips/killed{written}"
    command = [sys.executable, "-c", KILLED, where, str(folder), str(written)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    library = vp.Library(where)
    found = moments_of(library)
    assert len(found) == written
    assert_same(found, {path: unbroken[path] for path in found})
    assert library.add(folder, progress=False).encoded == CLIPS - written
    assert_same(moments_of(library), unbroken)
    assert not [line for line in library.verify().problems if "belong to no video" not in line]
