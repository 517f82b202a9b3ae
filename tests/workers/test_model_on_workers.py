"""The model on workers: their own copy of it, or one that is sent; others are refused."""

import os
import platform
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from distributed import Client

import videoprism_mlx as vp
from videoprism_mlx.errors import CheckpointError, WorkerError
from videoprism_mlx.files.places import cache_directory
from videoprism_mlx.models import DEMO_MODEL
from videoprism_mlx.weights.directory import named_parameters
from videoprism_mlx.weights.identity import ModelIdentity
from videoprism_mlx.workers import model as models
from videoprism_mlx.workers import sending
from videoprism_mlx.workers.connect import connected
from videoprism_mlx.workers.files import Files
from videoprism_mlx.workers.model import Facts, acceptance, introduce, shared_model
from videoprism_mlx.workers.places import Places
from videoprism_mlx.workers.sending import Sender, fetch

# Workers see the videos under the same paths.
SEEN = Files(Places())


@pytest.fixture
def sender(client: Client, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Sender]:
    """Sends pieces of 50 kB. The process has no model yet."""
    monkeypatch.setattr(sending, "PIECE", 50_000)
    monkeypatch.setattr(models, "_loaded", {})
    with Sender(client) as sender:
        yield sender


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache."""
    monkeypatch.setenv("VIDEOPRISM_MLX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A model directory of its own."""
    folder = tmp_path / "models" / "mine"
    shutil.copytree(vp.models.SHIPPED[DEMO_MODEL], folder)
    return folder


def addresses(client: Client) -> list[str]:
    return sorted(client.scheduler_info(n_workers=-1)["workers"])


def reasons(client: Client, *arguments: Any) -> list[str | None]:
    """Why each worker is refused."""
    accept = acceptance(*arguments)
    return [accept(client, address) for address in addresses(client)]


def computed(model: vp.models.VideoPrismModel) -> np.ndarray[Any, Any]:
    """What a model makes of a clip."""
    clip = mx.random.uniform(shape=(1, 4, 32, 32, 3), key=mx.random.key(3))
    return np.array(model.video_encoder(clip)[0].astype(mx.float32))


def kept(cache: Path) -> list[str]:
    """The names of all files below the folder of models that were sent."""
    return sorted(path.name for path in (cache / "sent").rglob("*") if path.is_file())


def test_a_model_that_is_here_is_loaded_and_not_sent(
    client: Client, sender: Sender, directory: Path, cache: Path
) -> None:
    for name in (DEMO_MODEL, str(directory)):
        model = vp.load_model(name)
        with shared_model(sender, model, name, None, Places()) as shared:
            assert reasons(client, shared, [], SEEN) == [None, None]
            assert np.array_equal(computed(shared.load()), computed(model))
    assert not (cache / "sent").exists()


def test_a_worker_keeps_the_memory_of_arrays(
    client: Client, sender: Sender, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[None] = []
    monkeypatch.setattr(models.memory, "keep_freed", lambda: called.append(None))
    with shared_model(sender, vp.load_model(directory), directory, None, Places()) as shared:
        assert reasons(client, shared, [], SEEN) == [None, None]
    assert called == [None, None]  # Once on each worker.


def test_a_mapped_directory_is_used(sender: Sender, directory: Path, tmp_path: Path) -> None:
    model = vp.load_model(directory)
    places = Places.of({tmp_path: str(tmp_path / "mounted")})
    shutil.copytree(directory.parent, tmp_path / "mounted" / "models")
    with shared_model(sender, model, directory, None, places) as shared:
        shutil.rmtree(directory)
        assert shared.find() == tmp_path / "mounted" / "models" / "mine"


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_a_model_that_is_not_here_is_sent_in_pieces_bit_for_bit(
    client: Client, sender: Sender, directory: Path, cache: Path, dtype: str | None
) -> None:
    model = vp.load_model(directory, dtype)
    expected = computed(model), ModelIdentity(model).parameters
    size = (directory / "model.safetensors").stat().st_size
    assert size > 30 * sending.PIECE
    with shared_model(sender, model, directory, dtype, Places()) as shared:
        moved = directory.rename(directory.with_name("moved"))
        for offer in shared.offers:  # Only this process has the files, under a path of its own.
            sender._offered.add(offer.path)
        answer = sender._send

        def send(request: dict[str, Any]) -> None:
            there = str(moved / Path(os.fsdecode(request["path"])).name)
            sender._offered.add(there)
            answer({**request, "path": there})

        sender._send = send  # type: ignore[method-assign]
        assert reasons(client, shared, [], SEEN) == [None, None]
        [sent] = (cache / "sent").iterdir()
        assert kept(cache) == ["config.json", "model.safetensors"]
        for name in kept(cache):
            assert (sent / name).read_bytes() == (moved / name).read_bytes()
        loaded = shared.load()
        assert np.array_equal(computed(loaded), expected[0])
        assert ModelIdentity(loaded).parameters == expected[1]


def test_a_changed_model_at_the_mapped_place_is_refused(
    client: Client, sender: Sender, directory: Path, tmp_path: Path, cache: Path
) -> None:
    model = vp.load_model(directory)
    other = vp.load_model(directory)
    name, array = next(iter(named_parameters(other).items()))
    other.load_weights([(name, array + 1)], strict=False)
    vp.save_model(other, tmp_path / "mounted" / "mine")
    places = Places.of({directory.parent: str(tmp_path / "mounted")})
    with shared_model(sender, model, directory, None, places) as shared:
        for reason in reasons(client, shared, [], Files(places)):
            assert reason is not None
            assert reason.startswith(
                f"{tmp_path}/mounted/mine on {platform.node()} holds another model: the checksum "
                "of model.safetensors is "
            )
            assert reason.endswith("or remove that directory so that the model is sent")
    assert not (cache / "sent").exists()


def test_weights_that_load_as_another_model_are_refused(
    client: Client, sender: Sender, directory: Path
) -> None:
    """The file is the same, but what it is loaded as is not."""
    model = vp.load_model(directory)
    text = (directory / "config.json").read_text()
    with shared_model(sender, model, directory, "bfloat16", Places()) as shared:
        [reason, _] = reasons(client, shared, [], SEEN)
    assert reason is not None
    assert reason.startswith(
        f"the model on {platform.node()} is another one: bfloat16, parameters "
    )
    assert "; expected float16, parameters " in reason
    assert text == (directory / "config.json").read_text()


def test_a_model_in_memory_is_sent_as_it_is_now(
    client: Client, sender: Sender, directory: Path
) -> None:
    model = vp.load_model(directory)
    name, array = next(iter(named_parameters(model).items()))
    model.load_weights([(name, array * 2)], strict=False)
    with shared_model(sender, model, None, None, Places()) as shared:
        assert reasons(client, shared, [], SEEN) == [None, None]
        assert ModelIdentity(shared.load()).parameters == ModelIdentity(model).parameters
        assert np.array_equal(computed(shared.load()), computed(model))
    assert not Path(shared.directory).exists()


def test_a_model_whose_adapters_are_not_fused_cannot_be_shared(
    sender: Sender, directory: Path
) -> None:
    model = vp.load_model(directory)
    vp.add_adapters(model, 2)
    with (
        pytest.raises(CheckpointError, match="does not fit the model"),
        shared_model(sender, model, None, None, Places()),
    ):
        raise AssertionError


def test_a_quantized_model_is_the_same_on_a_worker(
    client: Client, sender: Sender, directory: Path
) -> None:
    model = vp.quantize(vp.load_model(directory), 8, group_size=32)
    with shared_model(sender, model, None, None, Places()) as shared:
        assert reasons(client, shared, [], SEEN) == [None, None]
        assert np.array_equal(computed(shared.load()), computed(model))


def test_a_worker_that_sees_none_of_the_videos_is_refused(
    client: Client,
    sender: Sender,
    directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that nobody sees any more is no reason."""
    (tmp_path / "seen.mp4").write_bytes(b"1234")
    videos = [("/nas/a.mp4", 3), (str(tmp_path / "seen.mp4"), 4)]
    with shared_model(sender, vp.load_model(directory), directory, None, Places()) as shared:
        assert reasons(client, shared, videos[:1], SEEN) == [None, None]
        monkeypatch.setattr(models, "is_there", lambda *_: True)
        assert reasons(client, shared, videos, SEEN) == [None, None]
        assert reasons(client, shared, videos[:1], Files(Places(), "sent")) == [None, None]
        for reason in reasons(client, shared, videos[:1], SEEN):
            assert reason is not None
            assert reason.startswith(
                f"there is no /nas/a.mp4 on {platform.node()}; mount that folder"
            )


def test_a_worker_with_another_version_is_refused(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = addresses(client)[0]
    for found, reason in (
        ("0.0", "it has videoprism_mlx 0.0, and this machine has "),
        (ModuleNotFoundError("no"), "videoprism_mlx is not installed there; install "),
        (
            Exception("ModuleNotFoundError(\"No module named 'videoprism_mlx'\")"),  # As Dask says.
            "videoprism_mlx is not installed there; install ",
        ),
        (OSError("gone"), "it does not answer (gone)"),
    ):
        monkeypatch.setattr(Client, "run", lambda *_, found=found, **__: {address: found})
        assert str(models.wrong_version(client, address)).startswith(reason)


def test_what_only_changes_rounding_is_said_and_accepted() -> None:
    here = Facts("mac1", "0.32.4", "GPU", "float32")
    assert here.differences(Facts("mac2", "0.32.4", "GPU", "float32")) == []
    assert here.differences(Facts("mac3", "0.31.0", "CPU", "tf32")) == [
        "MLX 0.31.0 (here 0.32.4)", "the CPU (here GPU)", "products in tf32 (here float32)",
    ]  # fmt: skip


def fetched(client: Client, *arguments: Any) -> None:
    client.submit(fetch, *arguments, pure=False).result()


def test_what_was_not_offered_is_not_sent_and_what_changes_is_not_used(
    client: Client, sender: Sender, tmp_path: Path
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(120_000))
    offer = sender.offer(source)
    fetched(client, offer, target)
    assert target.read_bytes() == source.read_bytes()
    secret = tmp_path / "secret"
    secret.write_text("x")
    with pytest.raises(WorkerError, match=r"secret was not sent: .*secret is not sent to workers"):
        fetched(client, offer._replace(path=str(secret), size=1), target)
    with pytest.raises(WorkerError, match="source was changed, or damaged while it was sent"):
        fetched(client, offer._replace(sha256="0" * 64), target)
    source.write_bytes(b"short")
    with pytest.raises(WorkerError, match="source was changed while it was sent"):
        fetched(client, offer, target)
    source.unlink()
    with pytest.raises(WorkerError, match=r"source was not sent: .*there is no such file"):
        fetched(client, offer, target)
    assert sending._answers == {}


def test_a_file_that_does_not_come_is_an_error_after_a_while(
    client: Client, sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "PATIENCE", 0.05)
    (tmp_path / "source").write_text("x")
    offer = sender.offer(tmp_path / "source")._replace(topic="nobody-listens")
    with pytest.raises(WorkerError, match=r"was not sent: no answer in 0\.05 s"):
        fetched(client, offer, tmp_path / "target")


def test_a_model_is_fetched_once_at_a_time(
    client: Client, sender: Sender, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers, each a process in its own right as far as the lock is concerned."""
    fetching: list[str] = []
    original: Callable[..., None] = models.fetch

    def slow(offer: sending.Offer, target: Path) -> None:
        fetching.append(Path(offer.path).name)
        time.sleep(0.05)
        original(offer, target)

    monkeypatch.setattr(models, "fetch", slow)
    with shared_model(sender, vp.load_model(directory), directory, None, Places()) as shared:
        submitted = [
            client.submit(shared.received, workers=[address], pure=False)
            for address in addresses(client)
        ]
        assert client.gather(submitted) == [cache_directory() / "sent" / submitted_name(shared)] * 2
    assert fetching == ["config.json", "model.safetensors"]


def submitted_name(shared: models.SharedModel) -> str:
    return shared.received().name


def test_a_transfer_that_is_killed_leaves_nothing_that_is_trusted(
    directory: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = vp.load_model(directory)
    with connected(1, show=False) as client, Sender(client) as sender:
        go_on = threading.Event()
        send = sender._send

        def hold(request: dict[str, Any]) -> None:
            if request["path"].endswith(b"model.safetensors"):
                go_on.wait()
            send(request)

        sender._send = hold  # type: ignore[method-assign]
        with shared_model(sender, model, directory, None, Places()) as shared:
            object.__setattr__(shared, "directory", "/nowhere")
            [pid] = client.run(os.getpid).values()
            first = client.submit(introduce, shared, [], SEEN, pure=False)
            wait_for(lambda: "config.json" in kept(cache))
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: pid not in client.run(os.getpid, on_error="ignore").values())
            assert [path.name for path in (cache / "sent").iterdir() if path.name[0] != "."] == []
            go_on.set()
            assert first.result() == Facts.here()  # Of the process that took its place.
            [sent] = (cache / "sent").iterdir()  # What was left is gone, too.
            assert (sent / "model.safetensors").read_bytes() == (
                directory / "model.safetensors"
            ).read_bytes()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
