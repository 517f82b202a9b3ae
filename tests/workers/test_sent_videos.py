"""Videos that workers do not see: they are sent, kept for the next task, and removed."""

import os
import shutil
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import media
import pytest
from distributed import Client, get_worker

import videoprism_mlx as vp
from videoprism_mlx.errors import InputError, WorkerError
from videoprism_mlx.features.spans import dividing
from videoprism_mlx.models import DEMO_MODEL
from videoprism_mlx.workers import files as received
from videoprism_mlx.workers import model as models
from videoprism_mlx.workers import sending
from videoprism_mlx.workers.files import Files, files_of
from videoprism_mlx.workers.places import Places
from videoprism_mlx.workers.sending import Sender


@pytest.fixture(autouse=True)
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers see no files of ours, and nothing is left from earlier tests."""
    monkeypatch.setattr(Places, "candidates", lambda _, path: [f"/nowhere{path}"])
    monkeypatch.setattr(received, "_received", {})
    monkeypatch.setattr(models, "_loaded", {})


def read(files: Files, path: str, size: int) -> tuple[dict[str, bytes], str]:
    """On a worker: what a video consists of, and where it is."""
    with files.at_hand(path, size) as found:
        inside = sorted(found.iterdir()) if found.is_dir() else [found]
        assert get_worker().local_directory in str(found)
        return {one.name: one.read_bytes() for one in inside}, str(found)


def test_a_file_and_a_folder_of_images_come_whole(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "PIECE", 3_000)
    video, folder = tmp_path / "a.mp4", tmp_path / "frames"
    video.write_bytes(os.urandom(10_000))
    folder.mkdir()
    images = {f"{number}.png": os.urandom(4_000 + number) for number in range(3)}
    for name, content in images.items():
        (folder / name).write_bytes(content)
    (folder / "notes.txt").write_text("not an image")
    paths = [str(video), str(folder)]
    with Sender(client) as sender, files_of(client, sender, Places(), paths, True) as files:
        found, where = client.submit(read, files, paths[0], 10_000, pure=False).result()
        assert found == {"a.mp4": video.read_bytes()}
        found, folder_there = client.submit(read, files, paths[1], 12_003, pure=False).result()
        assert found == images
        assert Path(where).exists() and Path(folder_there).exists()  # For the next task.
        with pytest.raises(WorkerError, match=r"other\.mp4 is not sent"):
            client.submit(read, files, str(tmp_path / "other.mp4"), 1, pure=False).result()
    assert not Path(where).exists() and not Path(folder_there).exists()
    assert received._received == {}


def test_without_sending_a_file_that_is_not_seen_is_an_error(
    client: Client, tmp_path: Path
) -> None:
    with (
        Sender(client) as sender,
        files_of(client, sender, Places(), [], False) as files,
        pytest.raises(WorkerError, match=r"there is no .*a\.mp4 on .*--map"),
    ):
        client.submit(read, files, str(tmp_path / "a.mp4"), 1, pure=False).result()


def test_what_was_sent_is_used_again_and_the_oldest_is_removed(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(received, "MOST_KEPT", 250)
    fetched: list[str] = []
    fetch = received.fetch
    monkeypatch.setattr(
        received,
        "fetch",
        lambda offer, to: (fetched.append(Path(offer.path).name), fetch(offer, to)),
    )
    paths = [tmp_path / f"{name}.mp4" for name in "abc"]
    for path in paths:
        path.write_bytes(os.urandom(100))
    worker = sorted(client.scheduler_info(n_workers=-1)["workers"])[0]

    def use(files: Files, *names: str) -> None:
        for name in names:
            path = str(tmp_path / f"{name}.mp4")
            client.submit(read, files, path, 100, workers=[worker], pure=False).result()

    named = [str(path) for path in paths]
    with Sender(client) as sender, files_of(client, sender, Places(), named, True) as files:
        use(files, "a", "b", "a", "b")
        assert fetched == ["a.mp4", "b.mp4"]
        use(files, "a", "c")  # There is no room for a third one: b was not used for longest.
        assert [Path(path).name for _, path in received._received] == ["a.mp4", "c.mp4"]
        use(files, "a", "b")
        assert fetched == ["a.mp4", "b.mp4", "c.mp4", "b.mp4"]


def test_a_disk_that_is_too_small_is_named(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"1234")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=received.LEFT_FREE + 3))
    paths = [str(tmp_path / "a.mp4")]
    with (
        Sender(client) as sender,
        files_of(client, sender, Places(), paths, True) as files,
        pytest.raises(WorkerError, match=r"a\.mp4 cannot be sent to .*--local-directory"),
    ):
        client.submit(read, files, paths[0], 4, pure=False).result()
    assert received._received == {}


@pytest.mark.parametrize("settings", [{"batch_size": 2}, {"window": 4, "stride": 10}])
def test_embed_gives_the_same_from_videos_that_are_sent(
    client: Client, tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dividing, "SECONDS", 1.5)
    monkeypatch.setattr(dividing, "MOST_TWICE", 9.0)
    clips = [media.clip("b.mp4"), media.clip("uneven.mkv")]
    arguments: dict[str, Any] = dict(model=DEMO_MODEL, progress=False, **settings)
    vp.embed(clips, tmp_path / "one.npz", **arguments)
    found = vp.embed(clips, tmp_path / "sent.npz", **arguments, client=client, send_files=True)
    assert found.skipped == {}
    assert (tmp_path / "sent.npz").read_bytes() == (tmp_path / "one.npz").read_bytes()
    assert received._received == {}


def test_a_library_gets_the_same_from_videos_that_are_sent(client: Client, tmp_path: Path) -> None:
    one, sent = vp.Library(tmp_path / "one"), vp.Library(tmp_path / "sent")
    one.add(media.clip("b.mp4"), DEMO_MODEL, progress=False)
    sent.add(media.clip("b.mp4"), DEMO_MODEL, progress=False, client=client, send_files=True)
    rows = [
        library.tables().moments.search().select(["start", "end", "embedding"]).to_list()
        for library in (one, sent)
    ]
    assert rows[0] == rows[1] != []


def test_a_worker_that_does_not_answer_holds_up_no_other_and_not_the_end(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`forget` and `deliver` wait for one of the workers for ever."""
    monkeypatch.setattr(received, "FORGETTING", 0.1)
    hung, other = sorted(client.nthreads())
    asked, end, run = threading.Event(), threading.Event(), Client.run

    def hanging(self: Client, function: Any, *arguments: Any, **options: Any) -> Any:
        if hung in (options.get("workers") or [hung]):
            asked.set()
            end.wait()
        return run(self, function, *arguments, **options)

    monkeypatch.setattr(Client, "run", hanging)
    (tmp_path / "a.mp4").write_bytes(content := os.urandom(10))
    path = str(tmp_path / "a.mp4")
    with Sender(client) as sender, files_of(client, sender, Places(), [path], True) as files:
        for _ in range(5):
            client.submit(sending.ask, files.topic, path, 0, 10, workers=[hung], pure=False)
        assert asked.wait(10)
        found = client.submit(read, files, path, 10, workers=[other], pure=False).result(10)
        assert found[0] == {"a.mp4": content}
    end.set()
    sending._answers.clear()


def test_sending_without_workers_is_refused(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(InputError, match="send_files is for workers; give cl"))
        vp.embed(media.clip("b.mp4"), tmp_path / "out.npz", DEMO_MODEL, send_files=True)
