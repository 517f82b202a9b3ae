"""Which task a worker gets next, and which workers are kept for suspects; without any worker."""

from typing import Any

from videoprism_mlx.workers.crew.events import Events
from videoprism_mlx.workers.crew.line import Line, Work
from videoprism_mlx.workers.crew.members import Attempt, Member, Members
from videoprism_mlx.workers.tasks import Task

BOTH = ("a", "b")


def task(key: str, *parts: Task, group: object = None) -> Task:
    """A task that does nothing."""
    return Task(key, print, group=group, parts=parts)


def keys(line: Line) -> list[str]:
    """The suspects that may be done now."""
    return [work.task.key for work in line.suspects([])]


def test_parts_take_the_place_of_a_task_during_which_a_worker_died() -> None:
    line, whole = Line(), task("whole", task("one"), task("two"))
    line.bring_back(Work(whole))
    work = line.take([], "a", BOTH)
    assert work is not None and work.task is whole  # No worker has died.
    work.deaths.append("a")
    work.unable.add("b")
    line.bring_back(work)
    assert keys(line) == ["one", "two"] and len(line) == 2 and line.has_only_suspects
    parts = list(line.suspects([]))
    assert [(each.deaths, each.unable) for each in parts] == [(["a"], set()), (["a"], set())]
    parts[0].deaths.append("b")
    parts[0].unable.add("a")
    assert (parts[1].deaths, parts[1].unable) == (["a"], set())


def test_suspects_are_left_to_workers_that_can_do_them() -> None:
    line = Line()
    for name in ("one", "two"):
        line.bring_back(Work(task(name), ["c"], {"a"} if name == "one" else {"b"}))

    def taken(address: str, others: tuple[str, ...] = BOTH) -> str | None:
        work = line.take_suspect([], address, others)
        return None if work is None else work.task.key

    assert taken("a") == "two"
    assert taken("a") is None
    assert taken("b") == "one"
    line.bring_back(Work(task("three"), ["c"], {"a"}))
    assert taken("a", ("a",)) == "three"  # Nobody else is there.


def test_one_suspect_of_a_group_at_a_time_and_no_other_task_of_it() -> None:
    line, video = Line(), object()
    for name in ("one", "two"):
        line.bring_back(Work(task(name, group=video), ["a"]))
    line.append(Work(task("three", group=video)))
    line.append(Work(task("other")))
    assert keys(line) == ["one"]
    first = line.take_suspect([], "a", BOTH)
    assert first is not None and line.take_suspect([first], "b", BOTH) is None
    work = line.take([first], "b", BOTH)
    assert work is not None and work.task.key == "other"
    assert line.take([first], "b", BOTH) is None
    line.drop(video)
    assert len(line) == 0


def members_of(*names: str) -> Members:
    """Workers that have nothing to do."""
    nobody: Any = None
    members = Members(nobody, Events(), None, 0.0, nobody)
    members._members = {name: Member(name, name, 1) for name in names}
    return members


def apart(members: Members, suspects: list[Work], is_end: bool = False) -> set[str]:
    """Which workers are kept for suspects and have nothing to do."""
    found = {one.address for one in members.set_apart(suspects, is_end)}
    assert found <= {one.address for one in members if one.is_apart}
    return found


def test_half_of_the_workers_at_most_are_kept_for_suspects() -> None:
    members = members_of("a", "b", "c", "d")
    suspects = [Work(task(str(number)), ["e"]) for number in range(6)]
    first = apart(members, suspects)
    assert len(first) == 2
    for address, work in zip(sorted(first), suspects, strict=False):
        members._members[address].attempts["key"] = Attempt("key", work, None)
    assert apart(members, suspects[2:]) == set()
    others = {"a", "b", "c", "d"} - first
    assert {one.address for one in members.with_room()} >= others
    assert apart(members, suspects[2:], is_end=True) == others
    assert apart(members_of("a"), suspects) == {"a"}  # Or nothing would go on.


def test_workers_that_can_do_a_suspect_are_kept_for_it() -> None:
    members = members_of("a", "b", "c")
    assert apart(members, [Work(task("one"), ["e"], {"a", "b"})]) == {"c"}
    assert [one.address for one in members if one.is_apart] == ["c"]
    assert len(apart(members, [Work(task("one"), ["e"], {"a", "b", "c"})])) == 1
    assert apart(members, []) == set() and not any(one.is_apart for one in members)
