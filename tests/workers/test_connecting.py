"""Connecting to schedulers, and worker processes on this machine."""

import http.server
import operator
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster
from distributed.versions import get_versions

from videoprism_mlx.errors import InputError, InputTypeError, NetworkError, WorkerError
from videoprism_mlx.runtime.limits import available_cores
from videoprism_mlx.workers import connect, local
from videoprism_mlx.workers.connect import connected, require_versions


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A scheduler with one worker, in this process."""
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        protocol="tcp://",
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        yield cluster


def test_an_address_gives_a_client_that_computes_and_is_closed_after_the_block(
    cluster: LocalCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    with connected(cluster.scheduler_address) as client:
        assert client.submit(operator.add, 2, 3).result() == 5
    assert client.status == "closed"
    assert capsys.readouterr().err == f"Dask's dashboard: {cluster.dashboard_link}\n"
    with connected(cluster.scheduler_address.removeprefix("tcp://"), show=False) as client:
        assert client.status == "running"
    assert capsys.readouterr().err == ""


def test_a_client_is_used_as_it_is_and_stays_open(cluster: LocalCluster) -> None:
    with Client(cluster, set_as_default=False) as mine:
        with connected(mine) as client:
            assert client is mine
        assert mine.status == "running"
    with pytest.raises(InputError, match="client is closed; expected one that is connected"):
        connected(mine).__enter__()


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("", "'' has no host, or no number of a port"),
        ("mac1", "'mac1' has no host, or no number of a port"),
        ("mac1:port", "'mac1:port' has no host"),
        ("tcp:/mac1:8786", "'tcp:/mac1:8786' has no host"),
        ("tcp://mac1:99999", "'tcp://mac1:99999' has no host"),
        ("http://mac1:8787", "has the protocol 'http', and not one of tcp, tls, ws, wss"),
        ("inproc://mac1:1", "has the protocol 'inproc'"),
    ],
)
def test_what_is_no_address_is_refused_before_anything_is_asked(address: str, problem: str) -> None:
    with pytest.raises(InputError, match="such as tcp://mac1:8786") as caught:
        connected(address).__enter__()
    assert problem in str(caught.value)


def test_a_client_or_number_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(InputTypeError, match=r"client is 2\.5; expected a distributed\.Client"):
        connected(2.5).__enter__()  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="client is True"):
        connected(True).__enter__()
    with pytest.raises(InputError, match=r"workers \(--workers\) is 0; expected 1 or more"):
        connected(0).__enter__()


def listener(stack: ExitStack, greeting: bytes | None) -> int:
    """The port of a server that greets and then says nothing; with None, it closes at once."""
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

    def serve() -> None:
        while True:
            try:
                connection = server.accept()[0]
            except OSError:
                return
            if greeting is None:
                connection.close()
            else:
                stack.enter_context(connection)
                connection.sendall(greeting)

    threading.Thread(target=serve, daemon=True).start()
    return int(server.getsockname()[1])


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        ("none", "connection refused"),
        ("silent", "no answer in 0.5 s"),
        ("ssh", "what answers there is not Dask's scheduler"),
        ("closing", "(no answer in 0.5 s|what answers there is not Dask's scheduler)"),
        ("http", "(no answer in 0.5 s|what answers there is not Dask's scheduler)"),
        ("worker", "that is the address of a worker"),
    ],
)
def test_a_scheduler_that_does_not_answer_is_one_error_soon(
    server: str,
    reason: str,
    cluster: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(connect, "SECONDS", 0.5)
    with ExitStack() as stack:
        if server == "none":
            with socket.create_server(("127.0.0.1", 0)) as closed:
                port = closed.getsockname()[1]
        elif server == "http":
            handler = http.server.SimpleHTTPRequestHandler
            monkeypatch.setattr(handler, "log_message", lambda *_: None)
            web = stack.enter_context(http.server.HTTPServer(("127.0.0.1", 0), handler))
            stack.callback(web.shutdown)
            threading.Thread(target=web.serve_forever, args=[0.01], daemon=True).start()
            port = web.server_port
        elif server == "worker":
            port = int(cluster.workers[0].address.rpartition(":")[2])
        else:
            greetings = {"silent": b"", "ssh": b"SSH-2.0-OpenSSH_9.2\r\n" * 9, "closing": None}
            port = listener(stack, greetings[server])
        address = f"tcp://127.0.0.1:{port}"
        with pytest.raises(NetworkError) as caught:
            connected(address).__enter__()
    caught.match(rf"^could not reach the scheduler {address}: {reason}; start one with `dask sched")
    assert capfd.readouterr().err == ""


def test_a_host_that_is_not_there_is_named() -> None:
    with pytest.raises(NetworkError, match=r"tcp://mac1\.invalid:8786: the server was not found"):
        connected("tcp://mac1.invalid:8786").__enter__()


def test_other_versions_of_python_and_dask_are_refused() -> None:
    here = get_versions()["packages"]
    require_versions("the scheduler", here | {"numpy": "1.0", "python": f"{sys.version_info[0]}."
                                              f"{sys.version_info[1]}.99.final.0"})  # fmt: skip
    with pytest.raises(WorkerError, match=r"the scheduler has distributed 2020\.1, and this mach"):
        require_versions("the scheduler", here | {"distributed": "2020.1"})
    with pytest.raises(WorkerError, match=r"has Python 2\.7, and this machine has 3\."):
        require_versions("the scheduler", here | {"python": "2.7.18.final.0"})


def test_a_scheduler_without_this_package_is_named(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "own_version", lambda: "9.9")  # Sent by value: it is no module's.
    monkeypatch.setattr(
        Client, "run_on_scheduler", lambda *_: (_ for _ in ()).throw(ModuleNotFoundError("no"))
    )
    with pytest.raises(WorkerError, match=r"is not installed there; install 9\.9 on all machines"):
        connected(cluster.scheduler_address, show=False).__enter__()
    monkeypatch.setattr(Client, "run_on_scheduler", lambda *_: "0.0")
    with pytest.raises(WorkerError, match=r"videoprism_mlx is version 0\.0 there"):
        connected(cluster.scheduler_address, show=False).__enter__()


def test_the_cores_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 4, 6, 8}, raising=False)
    assert local.shares(2) == [[0, 2], [4, 6, 8]]
    assert local.shares(7) == [[0], [2], [4], [6], [8], [0], [2]]
    monkeypatch.delattr(os, "sched_getaffinity")
    assert local.shares(2) == [None, None]


def test_worker_processes_work_come_back_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    # After so long, Dask gives up a worker that is just not there.
    given_up = dask.config.set({"distributed.deploy.lost-worker-timeout": "50ms"})
    with given_up, connected(2) as client:
        first = client.run(os.getpid)
        cores = client.run(available_cores)
        if hasattr(os, "sched_getaffinity") and available_cores() > 1:
            assert sum(cores.values()) == available_cores()
        os.kill(next(iter(first.values())), signal.SIGKILL)
        deadline = time.monotonic() + 30
        while len(set(client.run(os.getpid, on_error="ignore").values()) | {*first.values()}) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        pids = client.run(os.getpid, on_error="ignore")
        assert client.submit(operator.mul, 6, 7).result() == 42
        client.submit(time.sleep, 60)  # It is running when the block ends.
    assert not any(is_running(pid) for pid in pids.values())
    assert list(tmp_path.iterdir()) == []
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("Dask's dashboard: http://127.0.0.1:")
    assert printed.err.count("\n") == 1


def is_running(pid: int) -> bool:
    """Whether a process runs, and is no zombie."""
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_worker_processes_end_with_a_main_process_that_is_killed(tmp_path: Path) -> None:
    # Without `if __name__ == "__main__"`, which other ways to start processes need.
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, time
            from videoprism_mlx.workers.connect import connected
            with connected(1) as client:
                print(*client.run(os.getpid).values(), flush=True)
                client.submit(time.sleep, 60).result()
            """
        )
    )
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, script],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert is_running(pid)
    assert list(temporary.glob("videoprism_mlx-workers-*"))
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 10
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not list(temporary.glob("videoprism_mlx-workers-*"))
