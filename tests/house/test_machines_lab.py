"""The lab of several machines: what it computes, and its hosts, as root on Linux."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.machines import simulate  # noqa: E402
from benchmarks.machines.lab import hosts, link  # noqa: E402


def can_make_hosts() -> bool:
    """Whether this process may make namespaces."""
    if sys.platform != "linux" or os.geteuid():
        return False
    try:
        command = ["unshare", "--net", "--mount", "--pid", "--fork", "ip", "link"]
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


needs_hosts = pytest.mark.skipif("not can_make_hosts()", reason="namespaces need root on Linux")

# An hour has 900 windows, in tasks of 450. Everything but the Macs takes whole seconds an hour.
RATES = simulate.Rates(
    task=2.0,  # 2 tasks: 4 s.
    result=1.0,  # 2 s.
    video=3.0,
    moment=0.01,  # 9 s.
    compact=0.0,
    index=0.002,  # 1.8 s.
    index_memory=100.0,
    shared_disk=100.0,
    bytes_an_hour=500.0,  # 5 s.
)


def test_what_is_full_first() -> None:
    work = simulate.Collection(hours=1000, span=450)
    assert work.tasks == 2 and work.windows == 900
    seconds = {name: 1 / rate for name, rate in simulate.limits(work, RATES).items()}
    assert seconds == pytest.approx({"scheduler": 4, "writer": 14, "index": 1.8, "shared disk": 5})
    # 4 Macs with 9 windows a second take 25 s an hour, 20 of them 5 s, which the writer does not.
    assert simulate.saturation(work, RATES, 4, 9) == (pytest.approx(25_000), "Macs")
    assert simulate.saturation(work, RATES, 20, 9) == (pytest.approx(14_000), "writer")
    assert simulate.macs_until_full(work, RATES, 9)["writer"] == pytest.approx(100 / 14)
    assert simulate.macs_for(work, 9, 25_000) == 4


def test_short_videos_cost_the_writer_more() -> None:
    work = simulate.Collection(
        hours=1, video=0.1, span=450
    )  # 90 windows: one task, ten to an hour.
    assert work.tasks == 10
    seconds = 1 / simulate.limits(work, RATES)["writer"]
    assert seconds == pytest.approx(10 * 1 + 10 * 3 + 9)


def test_a_run_task_by_task() -> None:
    """Computed by hand. A Mac has one task at a time, until the task is written.

    The scheduler gives tasks at 1 and 2; the Macs are done at 5 and 6; the writer at 7 and 9. Then
    the third task is given at 8, computed at 12, and written at 14.
    """
    played = simulate.play([4, 4, 4], [1, 1], task=1, write=2, ahead=1)
    assert played == simulate.Played(14, 3 / 14, 6 / 14, 6 / 14, 2, 14 - 6)


def test_a_slow_mac_gets_fewer_tasks() -> None:
    """One Mac takes 1 s for a task, the other 3 s: of 8 tasks, the second gets 2."""
    played = simulate.play([1] * 8, [1, 1 / 3], task=0, write=0, ahead=1)
    assert played.seconds == 6


def test_a_link_delays_frames_and_limits_their_rate() -> None:
    line = link.Direction(0, 0, rate=8000, delay=1)
    frame = bytes(100 - link.AROUND)  # It takes a tenth of a second.
    line.take(frame, 5.0)
    line.take(frame, 5.0)
    assert line.arrived(6.0) == []
    assert line.arrived(6.1) == [frame] and line.arrived(6.15) == []
    assert line.arrived(6.2) == [frame]
    for _ in range(9):
        line.take(frame, 7.0)
    assert len(line.waiting) == 2  # What would wait for longer than LONGEST is lost.


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit, match=r"^benchmarks\.machines .* for root on Linux only"):
        hosts.Lab(2)


@needs_hosts
def test_hosts_share_one_folder_and_nothing_else() -> None:
    with hosts.Lab(2, link=hosts.SLOW) as lab:
        first, second = lab.hosts
        (lab.disk / "video.mp4").write_text("seen")
        assert (
            first.run(["sh", "-c", "hostname; cat /Volumes/nas/video.mp4"]).stdout == "mac1\nseen"
        )
        assert second.run(["cat", "/mnt/nas/video.mp4"]).stdout == "seen"
        first.run(["touch", "/tmp/mine", "/etc/mine"])
        assert first.path("/etc/mine").exists()
        assert not second.path("/tmp/mine").exists() and not Path("/etc/mine").exists()
        assert first.run(["nproc"]).stdout == "1\n"
        ssh = "for _ in 1 2 3 4 5 6 7 8 9; do ssh mac2 true 2> /dev/null && break; sleep 0.1; done"
        first.run(["sh", "-c", ssh])
        started = time.monotonic()
        done = first.run(["ssh", "-tt", "-o", "LogLevel=QUIET", "mac2", "hostname; tty; exit 3"])
        assert done.returncode == 3 and done.stdout.startswith("mac2\n/dev/pts/")
        assert time.monotonic() - started > 4 * hosts.SLOW.delay  # There and back, twice.
        command = ["sh", "-c", "echo in | ssh me@mac2 'cat; echo wrong >&2; tty'"]
        done = first.run(command)
        assert (done.returncode, done.stdout, done.stderr) == (1, "in\nnot a tty\n", "wrong\n")
        paths = [lab.folder, Path(f"/proc/{second.pid}")]
    assert not any(path.exists() for path in paths)


@needs_hosts
def test_hosts_end_with_a_killed_program() -> None:
    script = "import json, time; from benchmarks.machines.lab.hosts import Lab\n"
    script += "lab = Lab(2); lab.hosts[1].start(['sleep', '1000'])\n"
    script += (
        "print(json.dumps([lab.hosts[0].pid, lab.hosts[1].pid, str(lab.folder)]), flush=True)\n"
    )
    script += "time.sleep(1000)"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    *pids, folder = json.loads(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    until = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    subprocess.run(["rm", "-r", folder], check=True)
