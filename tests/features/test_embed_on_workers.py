"""`vp.embed` on Dask's workers: the same files as in one process, whatever happens meanwhile."""

import io
import json
import os
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import media
import numpy as np
import pytest
from distributed import Client

import videoprism_mlx as vp
from videoprism_mlx.cli import main
from videoprism_mlx.errors import InputError
from videoprism_mlx.features.embedding import machines
from videoprism_mlx.features.embedding.on_workers import embed_batch
from videoprism_mlx.features.embedding.spool import WindowSpool, windows_of
from videoprism_mlx.features.formats import read_features, read_record
from videoprism_mlx.features.spans import dividing
from videoprism_mlx.features.windows import Window
from videoprism_mlx.models import DEMO_MODEL
from videoprism_mlx.workers import model as models
from videoprism_mlx.workers.connect import connected
from videoprism_mlx.workers.places import Places

GOOD = ["b.mp4", "mpeg4.avi", "uneven.mkv", "vp9.webm"]
SLOW = pytest.mark.slow
WINDOWS: dict[str, Any] = dict(window=4, stride=30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good videos, an empty one, and images as frames."""
    root = tmp_path_factory.mktemp("videos")
    for name in GOOD:
        shutil.copy(media.clip(name), root / name)
    (root / "empty.mp4").touch()
    return root


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process has no model yet, as a worker that was just started."""
    monkeypatch.setattr(models, "_loaded", {})


def contents(path: Path) -> dict[str, bytes]:
    """Every file of an output, by its name."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return {str(each.relative_to(path)): each.read_bytes() for each in files}


@pytest.mark.parametrize(
    ("output", "settings"),
    [
        *((output, {}) for output in ("npz", "jsonl")),
        ("folder", {"batch_size": 2}),
        *(pytest.param(each, {}, marks=SLOW) for each in ("safetensors", "parquet", "folder")),
        pytest.param("npz", {"batch_size": 2}, marks=SLOW),
        *((output, WINDOWS) for output in ("npz", "jsonl")),
    ],
)
def test_every_output_is_that_of_one_process(
    client: Client, folder: Path, tmp_path: Path, output: str, settings: dict[str, Any]
) -> None:
    if output in ("npz", "folder"):
        settings = {**settings, "features": ["tokens", "frames", "embedding"]}
    ending = "" if output == "folder" else f".{output}"
    one, many = tmp_path / f"one{ending}", tmp_path / f"many{ending}"
    expected = vp.embed(folder, one, DEMO_MODEL, **settings, progress=False)
    found = vp.embed(folder, many, DEMO_MODEL, **settings, progress=False, client=client)
    assert contents(many) == contents(one)
    assert (found.videos, found.skipped) == (expected.videos, expected.skipped)
    assert found.output == many
    assert list(found.skipped) == ["empty.mp4"]


@pytest.mark.parametrize("settings", [{}, WINDOWS], ids=["clips", "windows"])
def test_an_open_file_gets_the_same_lines_in_the_same_order(
    client: Client, folder: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "MOST_AHEAD", 1)
    one, many = io.StringIO(), io.StringIO()
    vp.embed(folder, one, DEMO_MODEL, **settings, progress=False)
    vp.embed(folder, many, DEMO_MODEL, **settings, progress=False, client=client)
    assert many.getvalue() == one.getvalue()
    names = [json.loads(line)["video"] for line in many.getvalue().splitlines()]
    assert list(dict.fromkeys(names)) == GOOD


def test_long_videos_are_cut_into_spans_and_give_the_same_bits(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    put = machines.Crew.put
    monkeypatch.setattr(
        machines.Crew, "put", lambda self, task: (ran.append(task.key), put(self, task))
    )
    monkeypatch.setattr(dividing, "SECONDS", 0.9)
    monkeypatch.setattr(dividing, "MOST_TWICE", 9.0)
    settings = dict(features=["tokens", "embedding"], progress=False, **WINDOWS)
    for name in ("b.mp4", "uneven.mkv"):
        one, many = tmp_path / f"one-{name}.npz", tmp_path / f"many-{name}.npz"
        vp.embed(media.clip(name), one, DEMO_MODEL, **settings)
        vp.embed(media.clip(name), many, DEMO_MODEL, **settings, client=client)
        assert contents(many) == contents(one)
    assert len(ran) >= 4  # Spans after the first ones.


def test_large_results_are_cut_smaller(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    keep = machines.Video.keep

    def counted(self: Any, number: int, result: Any) -> None:
        counts.append(len(result))
        keep(self, number, result)

    monkeypatch.setattr(machines.Video, "keep", counted)
    monkeypatch.setattr(machines, "SPAN_BYTES", 2**18)
    settings: dict[str, Any] = dict(features=["tokens"], window=8, stride=2, progress=False)
    vp.embed(media.clip("b.mp4"), tmp_path / "out.npz", DEMO_MODEL, **settings, client=client)
    array = read_features(tmp_path / "out.npz")["tokens"]
    each = array[0].nbytes
    assert sum(counts) == len(array)
    assert max(counts) * each < 3 * 2**18


def test_few_windows_need_no_open_file(tmp_path: Path) -> None:
    """Those of many videos may wait for one that comes first."""
    vector = np.arange(600, dtype=np.float32)
    places = [WindowSpool(tmp_path / "nowhere") for _ in range(2)]
    for number, place in enumerate(places):
        for first in range(3):
            features = {"embedding": vector + first + 10 * number}
            place.append(Window(first, first + 1, features, first, 3))
    found = [arrays["embedding"][0] for arrays in windows_of(places)]
    assert found == [0, 1, 2, 10, 11, 12]


def test_an_interrupted_run_goes_on_with_or_without_workers(
    client: Client, folder: Path, tmp_path: Path
) -> None:
    one, many = tmp_path / "one", tmp_path / "many"
    vp.embed(folder, one, DEMO_MODEL, progress=False)
    vp.embed([folder / name for name in GOOD[:2]], many, DEMO_MODEL, progress=False, client=client)
    before = (many / "b.mp4.npz").stat().st_mtime_ns
    vp.embed(folder, many, DEMO_MODEL, progress=False, client=client)
    assert contents(many) == contents(one)
    assert (many / "b.mp4.npz").stat().st_mtime_ns == before
    vp.embed(folder, many, DEMO_MODEL, progress=False)
    assert contents(many) == contents(one)


def test_a_mapped_folder_is_read_and_errors_have_the_paths_of_the_command(
    client: Client, folder: Path, tmp_path: Path
) -> None:
    """The command sees stubs of the same sizes, as if another disk were mounted here."""
    there, here = tmp_path / "there", tmp_path / "here"
    shutil.copytree(folder, there)
    (there / "torn.mp4").write_bytes(media.clip("b.mp4").read_bytes()[:-3_000])
    here.mkdir()
    for path in there.iterdir():
        (here / path.name).write_bytes(bytes(path.stat().st_size))
        os.utime(here / path.name, ns=(path.stat().st_mtime_ns,) * 2)
    found = vp.embed(
        here,
        tmp_path / "out.npz",
        DEMO_MODEL,
        progress=False,
        client=client,
        mapping={here: str(there)},
    )
    expected = vp.embed(there, tmp_path / "expected.npz", DEMO_MODEL, progress=False)
    arrays, wanted = read_features(tmp_path / "out.npz"), read_features(tmp_path / "expected.npz")
    assert np.array_equal(arrays["embedding"], wanted["embedding"])
    assert found.videos == expected.videos == tuple(GOOD)
    assert found.skipped.keys() == {"empty.mp4", "torn.mp4"}
    for name, reason in found.skipped.items():
        assert reason == expected.skipped[name].replace(str(there), str(here))
    paths = [video["path"] for video in read_record(tmp_path / "out.npz")["videos"]]
    assert paths == [str(here / name) for name in GOOD]


def test_a_video_that_a_worker_does_not_see_is_skipped_and_tried_again(
    client: Client, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    monkeypatch.setattr(Places, "candidates", lambda _, path: [path.replace(str(here), str(there))])
    shutil.copytree(folder, there)
    shutil.copytree(folder, here)
    (there / "b.mp4").write_bytes(b"another")
    arguments: dict[str, Any] = dict(client=client, progress=False)
    found = vp.embed(here, tmp_path / "out.npz", DEMO_MODEL, **arguments)
    assert "has 7 bytes on " in found.skipped["b.mp4"]
    assert "(--map)" in found.skipped["b.mp4"]
    shutil.copy(here / "b.mp4", there / "b.mp4")
    found = vp.embed(here, tmp_path / "out.npz", DEMO_MODEL, **arguments)
    assert found.videos == tuple(GOOD)


def test_a_model_in_memory_and_adapters_give_the_same(
    client: Client, folder: Path, tmp_path: Path
) -> None:
    model, processor = vp.load(DEMO_MODEL)
    adapted = vp.add_adapters(vp.load(DEMO_MODEL)[0], 2)
    vp.save_adapters(adapted, tmp_path / "adapters", DEMO_MODEL)
    for number, arguments in enumerate(
        ({"model": (model, processor)}, {"adapters": tmp_path / "adapters", "dtype": "bfloat16"})
    ):
        one, many = tmp_path / f"one{number}.npz", tmp_path / f"many{number}.npz"
        vp.embed(folder / "b.mp4", one, **arguments, progress=False)
        vp.embed(folder / "b.mp4", many, **arguments, progress=False, client=client)
        assert contents(many) == contents(one)


def test_a_mapping_without_workers_is_refused_before_anything(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mapping is for workers; give client as well"):
        vp.embed("nowhere", tmp_path / "out.npz", "no model", mapping={"/a": "/b"})
    for client in (0, -1):
        with pytest.raises(InputError, match=r"workers \(--workers\) is .*; expected 1 or more"):
            vp.embed(media.clip("b.mp4"), tmp_path / "out.npz", DEMO_MODEL, client=client)
    assert not any(tmp_path.iterdir())


def test_no_worker_is_started_if_nothing_is_missing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vp.embed(folder / "b.mp4", tmp_path / "out.npz", DEMO_MODEL, progress=False)
    monkeypatch.setattr(machines, "hired", None)
    found = vp.embed(folder / "b.mp4", tmp_path / "out.npz", DEMO_MODEL, progress=False, client=2)
    assert found.videos == ("b.mp4",)


def test_the_command_shares_the_work_and_says_who_did_it(
    client: Client, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = client.scheduler.address
    one, many = tmp_path / "one.npz", tmp_path / "many.npz"
    assert main(["embed", str(folder), "-o", str(one), "--model", DEMO_MODEL, "-q"]) == 1
    said = capsys.readouterr().err
    command = ["embed", str(folder), "-o", str(many), "--model", DEMO_MODEL, "--scheduler", address]
    assert main([*command, "--map", f"{tmp_path}=/nowhere"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert contents(one) == contents(many)
    assert lines[0].startswith("Dask's dashboard: http://")
    assert lines[1] == said.strip()
    assert all(line.endswith(" a minute") for line in lines[2:-1])
    assert sum(int(line.split(": ")[1].split(" ")[0]) for line in lines[2:-1]) == len(GOOD) + 1
    assert lines[-1] == f"4 of 5 videos are in {many}, 1 skipped"


def embed_or_die(work: Any, videos: list[tuple[str, int]]) -> Any:
    """Kills the worker if the name of a video says so."""
    if any("deadly" in path for path, _ in videos):
        os.kill(os.getpid(), signal.SIGKILL)
    return embed_batch(work, videos)


@pytest.mark.attack
def test_a_worker_that_dies_changes_nothing_and_a_deadly_video_is_skipped(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real processes: one is killed while it works, and one video kills each that reads it."""
    source = tmp_path / "source"
    shutil.copytree(folder, source)
    (source / "empty.mp4").unlink()
    vp.embed(source, tmp_path / "one.npz", DEMO_MODEL, progress=False)
    with connected(2, show=False) as client:
        pids = [*client.run(os.getpid).values()]
        killer = threading.Timer(0.3, os.kill, (pids[0], signal.SIGKILL))
        killer.start()
        found = vp.embed(source, tmp_path / "many.npz", DEMO_MODEL, progress=False, client=client)
        killer.join()
        assert found.videos == tuple(GOOD)
        assert contents(tmp_path / "many.npz") == contents(tmp_path / "one.npz")

        shutil.copy(media.clip("mpeg4.mp4"), source / "deadly.mp4")
        monkeypatch.setattr(machines, "embed_batch", embed_or_die)
        for size in (1, 3):
            output = tmp_path / f"many {size}"
            settings: dict[str, Any] = dict(progress=False, client=client, batch_size=size)
            found = vp.embed(source, output, DEMO_MODEL, **settings)
            assert set(found.videos) == set(GOOD)
            assert list(found.skipped) == ["deadly.mp4"]
    assert "was being read by a worker that died, 2 times (worker " in found.skipped["deadly.mp4"]
