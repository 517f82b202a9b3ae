"""Tasks on workers that come, are slow, are refused, and die."""

import itertools
import os
import pickle
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import worker_jobs as jobs

from videoprism_mlx import errors
from videoprism_mlx.errors import VideoError, VideoPrismError, WorkerError
from videoprism_mlx.workers.crew.crew import Crew
from videoprism_mlx.workers.local import NEVER
from videoprism_mlx.workers.tasks import Done, Task

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A scheduler in this process with two workers, 0 and 1, which are started again."""
    import dask
    from distributed import Client, LocalCluster

    with (
        suppress(KeyError),  # Of Dask, at the end, for a worker that died meanwhile.
        dask.config.set({"distributed.deploy.lost-worker-timeout": NEVER}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as connected,
    ):
        yield connected


@pytest.fixture(autouse=True)
def both(client: Any) -> None:
    """Workers that an earlier test has killed are there again."""
    client.wait_for_workers(2, timeout=60)


def run(client: Any, tasks: Any, **options: Any) -> list[Done]:
    """What became of tasks."""
    with Crew(client, **options) as crew:
        return list(crew.run(tasks))


def values(done: list[Done]) -> dict[str, Any]:
    """The values by key; the errors' texts of those that failed."""
    return {one.task.key: one.value if one.error is None else str(one.error) for one in done}


def test_each_task_is_done_once_and_asked_for_late(client: Any) -> None:
    asked = 0

    def tasks() -> Iterator[Task]:
        nonlocal asked
        for number in range(30):
            asked += 1
            yield Task(str(number), jobs.double, (number, 0.01), about=number)

    seen, most = [], 0
    with Crew(client) as crew:
        for done in crew.run(tasks()):
            seen.append(done)
            most = max(most, asked - len(seen))
    assert values(seen) == {str(number): 2 * number for number in range(30)}
    assert len(seen) == 30 and all(one.task.about == one.value / 2 for one in seen)
    assert most <= 2 * 2 + 1  # Two for each thread, and one that waits for room.


def test_tasks_that_are_added_come_first(client: Any) -> None:
    order = []
    with Crew(client) as crew:
        for done in crew.run(Task(str(number), jobs.double, (number,)) for number in range(8)):
            order.append(done.task.key)
            if done.task.key == "0":
                crew.put(Task("added", jobs.double, (100,)))
    assert sorted(order) == sorted([*map(str, range(8)), "added"])
    assert order.index("added") <= 6


def test_a_task_that_ends_two_workers_fails_and_no_other(client: Any, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("always", "once")]
    for folder in folders:
        folder.mkdir()
    always, once = (
        Task(folder.name, jobs.die, (folder, times))
        for folder, times in zip(folders, (9, 1), strict=True)
    )
    others = [Task(str(number), jobs.double, (number, 0.02)) for number in range(12)]
    found = values(run(client, [*others[:3], always, once, *others[3:]]))
    said = found.pop("always")
    assert said.startswith("always was being read by a worker that died, 2 times (")
    assert found == {"once": 1, **{str(number): 2 * number for number in range(12)}}
    assert [len(list(folder.iterdir())) for folder in folders] == [2, 1]


def test_of_a_task_with_parts_only_the_deadly_one_fails(client: Any, tmp_path: Path) -> None:
    folder = tmp_path / "deadly"
    folder.mkdir()
    deadly = Task("deadly", jobs.die, (folder, 9))
    parts = (Task("one", jobs.double, (1,)), deadly, Task("three", jobs.double, (3,)))
    done = values(run(client, [Task("all", jobs.die, (folder, 9), parts=parts)]))
    assert done.keys() == {"one", "deadly", "three"} and (done["one"], done["three"]) == (2, 6)
    assert done["deadly"].startswith("deadly was being read by a worker that died, 2 times (")
    assert len(list(folder.iterdir())) == 2


@pytest.mark.attack
def test_what_waited_where_a_worker_died_is_not_blamed(client: Any, tmp_path: Path) -> None:
    """More workers die than a task may end, while the same tasks wait behind those that kill."""
    folders = [tmp_path / str(number) for number in range(4)]
    for folder in folders:
        folder.mkdir()
    killers = [Task(f"killer {one.name}", jobs.die, (one, 1, 0.05)) for one in folders]
    waiting = [Task(str(number), jobs.double, (number,)) for number in range(4)]
    mixed = itertools.chain.from_iterable(zip(killers, waiting, strict=True))
    done = run(client, mixed)
    assert all(one.error is None for one in done) and len(done) == 8


def test_a_result_that_is_lost_with_its_worker_is_made_again(client: Any) -> None:
    """The worker dies after its task has ended, and before the result is fetched."""
    with Crew(client) as crew:
        running = crew.run(Task(str(n), jobs.where, (0.02,)) for n in range(6))
        first = next(running)
        time.sleep(0.3)  # Those that were given to the workers are done by now.
        [address] = [
            one
            for one, worker in client.scheduler_info(n_workers=-1)["workers"].items()
            if f"worker {worker['name']}" == first.worker
        ]
        kill(client, address)
        assert sorted(one.task.key for one in [first, *running]) == list("012345")


def kill(client: Any, address: str) -> None:
    """Ends a worker, and waits until the scheduler knows it."""
    [pid] = client.run(os.getpid, workers=[address]).values()
    os.kill(pid, 9)
    while address in client.nthreads():
        time.sleep(0.01)


def test_a_worker_that_joins_late_is_used_and_a_slow_one_gets_less(client: Any) -> None:
    counts: dict[str, int] = {}
    late = threading.Thread(target=lambda: client.cluster.scale(3))
    tasks = (Task(str(number), jobs.slow_at, ("0", 0.02)) for number in range(60))
    with Crew(client) as crew:
        for number, done in enumerate(crew.run(tasks)):
            counts[done.worker] = counts.get(done.worker, 0) + 1
            if number == 2:
                late.start()
    late.join()
    client.cluster.scale(2)
    assert sum(counts.values()) == 60 and len(counts) == 3
    assert 3 * counts["worker 0"] < counts["worker 1"]


def test_at_the_end_idle_workers_take_what_waits_elsewhere(client: Any) -> None:
    done = run(client, [Task(str(number), jobs.slow_at, ("0", 0.1)) for number in range(4)])
    assert sorted(one.worker for one in done) == ["worker 0", *["worker 1"] * 3]


def test_a_refused_worker_gets_nothing(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    refused, accepted = sorted(client.nthreads())

    def accept(_: Any, address: str) -> str | None:
        return "it has other weights" if address == refused else None

    done = run(client, [Task(str(n), jobs.where, (0.01,)) for n in range(6)], accept=accept)
    [name] = {one.value for one in done}
    assert client.scheduler_info(n_workers=-1)["workers"][accepted]["name"] == int(name)
    assert capsys.readouterr().err == f"the worker {refused} is refused: it has other weights\n"


@pytest.mark.parametrize("in_list", [False, True])
def test_what_one_worker_cannot_do_others_do(
    client: Any, in_list: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """It fails at once, and must not take all tasks for that."""
    asked = 0

    def tasks() -> Iterator[Task]:
        nonlocal asked
        for number in range(30):
            asked += 1
            yield Task(str(number), jobs.unable_at, ("0", in_list))

    done, most = [], 0
    with Crew(client) as crew:
        for one in crew.run(tasks()):
            done.append(one)
            most = max(most, asked - len(done))
    assert [one.value for one in done] == ["1"] * 30
    assert most <= 10
    said = "other workers do what worker 0 cannot: there is no disk at 0\n"
    assert capsys.readouterr().err == said


def test_what_no_worker_can_do_fails(client: Any) -> None:
    tasks = [Task(str(number), jobs.fail, ("worker",)) for number in range(6)]
    done = run(client, tasks)
    assert [str(one.error) for one in done] == ["there is no disk"] * 6


def test_a_worker_that_dies_while_it_is_checked_is_not_waited_for(
    client: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The processes are started again, and die again."""

    def accept(asked: Any, address: str) -> str | None:
        kill(asked, address)
        time.sleep(60)
        return None

    monkeypatch.setattr("videoprism_mlx.workers.crew.members.SAY_AFTER", 60)
    with pytest.raises(WorkerError, match="there has been no worker for"):
        run(client, [Task("one", jobs.double, (1,))], accept=accept, patience=1)
    assert capsys.readouterr().err.count("died before it had a task") == 1


def test_errors_come_back_as_they_are(client: Any) -> None:
    kinds = ("video", "system", "mistake", "local")
    done = run(client, [Task(kind, jobs.fail, (kind,)) for kind in kinds])
    found = {one.task.key: one.error for one in done}
    assert [type(found[kind]) for kind in kinds] == [
        VideoError,
        FileNotFoundError,
        TypeError,
        RuntimeError,
    ]
    assert str(found["video"]) == "a.mp4 breaks off" and str(found["local"]) == "Local: of here"
    system = found["system"]
    assert isinstance(system, OSError) and system.filename == "a.mp4"
    assert "in fail" in str(found["mistake"] and found["mistake"].__cause__)


def test_a_warning_of_workers_is_said_here_once(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    run(client, [Task(str(number), jobs.warn, (number,)) for number in range(4)])
    assert [one.getMessage() for one in caplog.records if one.name == "videoprism_mlx"] == [
        "a.mp4 is HDR video"
    ]


def test_whoever_stops_does_not_wait(client: Any) -> None:
    begun = time.monotonic()
    with pytest.raises(ZeroDivisionError), Crew(client) as crew:
        tasks = [Task("quick", jobs.double, (1,))]
        tasks += [Task(str(n), jobs.double, (n, 1.5)) for n in range(4)]
        for _ in crew.run(tasks):
            raise ZeroDivisionError
    assert time.monotonic() - begun < 1
    deadline = time.monotonic() + 5
    while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_error_of_the_source_is_raised(client: Any) -> None:
    def tasks() -> Iterator[Task]:
        yield Task("one", jobs.double, (1,))
        raise VideoError("the disk is gone")

    with pytest.raises(VideoError, match="the disk is gone"):
        run(client, tasks())


def test_without_workers_it_waits_and_then_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from distributed import Client, LocalCluster

    monkeypatch.setattr("videoprism_mlx.workers.crew.members.SAY_AFTER", 0)
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        with pytest.raises(WorkerError, match="run the same command again to continue"):
            run(client, [Task("one", jobs.double, (1,))], patience=0.5)
        assert capsys.readouterr().err.count("there is no worker; waiting for one: `dask wor") == 1


def test_a_scheduler_that_goes_away_ends_it() -> None:
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster:
        client = Client(cluster, set_as_default=False)
        with pytest.raises(WorkerError, match="was lost"), Crew(client) as crew:
            for _ in crew.run(Task(str(n), jobs.double, (n, 0.01)) for n in range(1000)):
                cluster.close()
        client.close()


def test_a_result_that_is_cut_off_says_that_the_scheduler_is_gone(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed.comm import CommClosedError

    def result(future: Any) -> None:
        raise CommClosedError("in <TCP (closed) ConnectionPool.gather>: reset by peer")

    monkeypatch.setattr(distributed.Future, "result", result)
    with pytest.raises(WorkerError, match=r"was lost.*start the scheduler and the workers again"):
        run(client, [Task("one", jobs.double, (1,))])


def test_all_errors_can_be_sent() -> None:
    kinds = [one for one in vars(errors).values() if isinstance(one, type)]
    kinds = [one for one in kinds if issubclass(one, VideoPrismError)]
    assert len(kinds) > 10
    for kind in kinds:
        error = kind("text")
        error.reason = "because"
        copied = pickle.loads(pickle.dumps(error))
        assert (type(copied), str(copied), copied.reason) == (kind, "text", "because")
