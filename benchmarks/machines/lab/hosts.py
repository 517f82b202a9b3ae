"""Hosts on one machine: network namespaces with a core, a name, an address and files of their own.

A host is what `unshare` makes: it has its own network, processes, name and mounts. Its files are
those of this machine as they were, and what it writes stays with it (overlayfs, in memory), so that
hosts share no disk but the one that they are given. The hosts are joined by a switch, which is a
bridge in one more namespace. All of it ends with this process, however that ends: each host lives
as long as a pipe is open.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parent

HOME, BIN = "/Users/me", "/opt/lab/bin"
# Where the shared disk is, if there is one: on the first host and on the others.
SHARED_FIRST, SHARED = "/Volumes/nas", "/mnt/nas"

# The PATH of one who logs in by ssh: without what a shell adds to it at the start.
LOGIN_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"

# What a host does first. {work} is an empty folder, {shared} a command that mounts the shared disk.
SET_UP = """
set -e
read pid rest < /proc/self/stat
hostname {name}
ip link set lo up
mount -t tmpfs tmpfs {work}
mkdir {work}/upper {work}/inner {work}/root
mount -t overlay overlay -o lowerdir=/,upperdir={work}/upper,workdir={work}/inner {work}/root
cd {work}/root
mkdir -p ./{home} ./{bin} .old
cp {programs}/* ./{bin}/
cp {etc}/hosts etc/hosts
mount --rbind /dev dev
mount --rbind /sys sys
mount -t proc proc proc
{shared}
pivot_root . .old
umount -l /.old
rmdir /.old
echo ready $pid
exec cat
"""
SWITCH = "set -e; read pid rest < /proc/self/stat; ip link add br0 type bridge; \
ip link set br0 up; echo ready $pid; exec cat"


class Link(NamedTuple):
    """How fast the network is between two hosts: bits a second, and seconds of delay one way."""

    rate: float
    delay: float


SLOW = Link(100e6, 0.020)


class Host:
    """A host: its name, its address and its core."""

    def __init__(self, name: str, address: str, core: int, holder: "subprocess.Popen[str]"):
        self.name, self.address, self.core = name, address, core
        self.holder, self.pid = holder, read_ready(holder)

    def __repr__(self) -> str:
        return f"Host({self.name!r}, {self.address!r}, core {self.core})"

    @property
    def files(self) -> Path:
        """The root of the host's files, as seen from outside."""
        return Path(f"/proc/{self.pid}/root")

    def path(self, path: str) -> Path:
        """A file of the host, as seen from outside."""
        return self.files / path.lstrip("/")

    def start(
        self, command: Sequence[str | Path], *, core: str | None = None, **options: Any
    ) -> "subprocess.Popen[str]":
        """Starts a command on the host's core, or on the cores that are named ("0,1")."""
        environment = {
            "HOME": HOME,
            "USER": "me",
            "LANG": "C.UTF-8",
            "TERM": os.environ.get("TERM", "dumb"),
            "PATH": f"{BIN}:{Path(sys.executable).parent}:{LOGIN_PATH}",
            "PYTHONPATH": str(ROOT),
            **options.pop("environment", {}),
        }
        words = [
            "taskset",
            "-c",
            core or str(self.core),
            *entering(self.pid, "mount", "uts", "pid"),
        ]
        words += ["env", "-i", f"--chdir={HOME}"]
        words += [f"{key}={value}" for key, value in environment.items()]
        return subprocess.Popen([*words, *map(str, command)], text=True, **options)

    def run(
        self, command: Sequence[str | Path], *, timeout: float = 600, **options: Any
    ) -> "subprocess.CompletedProcess[str]":
        """Runs a command to its end. What it prints is in the result."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        process = self.start(command, stdin=subprocess.DEVNULL, **options)
        try:
            out, errors = process.communicate(timeout=timeout)
        except BaseException:
            stop(process)
            raise
        return subprocess.CompletedProcess(command, process.returncode, out, errors)

    def processes(self, word: str = "") -> dict[int, str]:
        """The numbers and command lines of its processes in which a word occurs."""
        mine, found = os.readlink(f"/proc/{self.pid}/ns/pid"), {}
        for number in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{number}/ns/pid") == mine and int(number) != self.pid:
                    line = Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ")
                    if word in (text := line.decode(errors="replace")):
                        found[int(number)] = text
        return found


class Lab:
    """The hosts, until the `with` block ends."""

    def __init__(self, count: int = 3, link: Link | None = None, shared: bool = True):
        require_root()
        self.link, self.shared = link, shared
        self.folder = Path(tempfile.mkdtemp(prefix="videoprism-lab-"))
        self.hosts: list[Host] = []
        self.holders: list[subprocess.Popen[str]] = []
        try:
            self._build(count)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Lab":
        self._signals = {
            each: signal.signal(each, interrupted) for each in (signal.SIGTERM, signal.SIGHUP)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._signals.items():
            signal.signal(number, handler)
        self.close()

    def close(self) -> None:
        """Ends all hosts, with everything in them."""
        for holder in reversed(self.holders):
            assert holder.stdin is not None
            with contextlib.suppress(OSError):
                holder.stdin.close()
        for holder in self.holders:
            try:
                holder.wait(5)
            except subprocess.TimeoutExpired:
                holder.kill()
                holder.wait()
            assert holder.stdout is not None
            holder.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def cores(self) -> str:
        """All cores, for what is not bound to one."""
        return ",".join(map(str, sorted(os.sched_getaffinity(0))))

    @property
    def disk(self) -> Path:
        """The folder that is the shared disk, as seen from outside."""
        return self.folder / "nas"

    def hostfile(self) -> str:
        """Writes the hostfile of mlx.launch to the first host. Its path there."""
        path = f"{HOME}/hosts.json"
        hosts = [{"ssh": host.name, "ips": [host.address]} for host in self.hosts]
        self.hosts[0].path(path).write_text(json.dumps(hosts))
        return path

    def _build(self, count: int) -> None:
        names = [f"mac{number + 1}" for number in range(count)]
        addresses = [f"10.77.0.{number + 1}" for number in range(count)]
        for folder in ("nas", "bin", "etc", *names):
            (self.folder / folder).mkdir()
        lines = ["127.0.0.1 localhost", *map(" ".join, zip(addresses, names, strict=True))]
        (self.folder / "etc" / "hosts").write_text("\n".join(lines) + "\n")
        self._write_programs()
        switch = read_ready(self._hold(["--net"], SWITCH))
        cores = sorted(os.sched_getaffinity(0))
        for number, (name, address) in enumerate(zip(names, addresses, strict=True)):
            kinds = ["--net", "--uts", "--mount", "--pid", "--fork", "--kill-child"]
            holder = self._hold([*kinds, "--propagation", "private"], self._set_up(name, number))
            self.hosts.append(Host(name, address, cores[number % len(cores)], holder))
        self._connect(switch)
        for host in self.hosts:
            host.start([sys.executable, "-I", HERE / "ssh.py", "--serve"], stdin=subprocess.DEVNULL)

    def _write_programs(self) -> None:
        """The programs that the hosts have and this machine may lack."""
        programs = {
            "ssh": f'exec {sys.executable} -I {HERE / "ssh.py"} "$@"',
            "videoprism-mlx": f'exec {sys.executable} -m videoprism_mlx "$@"',
            "dask": f'exec {sys.executable} -m dask "$@"',
        }
        main = "from mlx._distributed_utils.launch import main; main()"
        programs["mlx.launch"] = f'exec {sys.executable} -c "{main}" "$@"'
        for name, line in programs.items():
            path = self.folder / "bin" / name
            path.write_text(f"#!/bin/sh\n{line}\n")
            path.chmod(0o755)

    def _set_up(self, name: str, number: int) -> str:
        """The script with which a host begins."""
        shared = ""
        if self.shared:
            place = "." + (SHARED if number else SHARED_FIRST)
            shared = f"mkdir -p {place}; mount --bind {self.disk} {place}"
        return SET_UP.format(
            name=name,
            work=self.folder / name,
            home=HOME,
            bin=BIN,
            programs=self.folder / "bin",
            etc=self.folder / "etc",
            shared=shared,
        )

    def _hold(self, kinds: list[str], script: str) -> "subprocess.Popen[str]":
        """Starts what keeps a namespace: it lives until its input ends."""
        command = ["unshare", *kinds, "sh", "-c", script]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.holders.append(subprocess.Popen(command, text=True, **pipes))
        return self.holders[-1]

    def _connect(self, switch: int) -> None:
        """Connects each host with the switch, by a cable or by a slow link."""
        if self.link is None:
            for number, host in enumerate(self.hosts):
                cable = f"ip link add port{number} type veth peer name eth0 netns {host.pid}"
                enter(switch, cable)
        else:  # A frame takes two of the links.
            words = [str(self.link.rate), str(self.link.delay / 2), str(switch)]
            command = [sys.executable, "-I", str(HERE / "link.py"), *words]
            command += [str(host.pid) for host in self.hosts]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self.holders.append(subprocess.Popen(command, text=True, **pipes))
            read_ready(self.holders[-1])
        for number, host in enumerate(self.hosts):
            enter(switch, f"ip link set port{number} master br0 up")
            enter(host.pid, f"ip addr add {host.address}/24 dev eth0")
            enter(host.pid, "ip link set eth0 up")


def require_root() -> None:
    """Ends the program where namespaces cannot be made."""
    missing = [name for name in ("unshare", "nsenter", "ip", "taskset") if not shutil.which(name)]
    if sys.platform != "linux" or os.geteuid() or missing:
        lacking = f" (not found: {', '.join(missing)})" if missing else ""
        sys.exit(f"benchmarks.machines makes network namespaces, for root on Linux only{lacking}")


def interrupted(number: int, _: object) -> None:
    """Ends the program as Ctrl-C does, so that the hosts are ended."""
    raise SystemExit(128 + number)


def read_ready(holder: "subprocess.Popen[str]") -> int:
    """Waits for a namespace to be made. The number of its first process."""
    assert holder.stdout is not None
    words = holder.stdout.readline().split()
    if words[:1] != ["ready"]:
        raise RuntimeError("a host could not be made; the message is above")
    return int(words[1])


def entering(pid: int, *kinds: str) -> list[str]:
    """The words that run a command in the network of a process, and in other namespaces of it."""
    return ["nsenter", f"--target={pid}", "--net", *(f"--{kind}" for kind in kinds)]


def enter(pid: int, line: str) -> None:
    """Runs a command in the network of a process."""
    subprocess.run([*entering(pid), *line.split()], check=True)


def descendants(pid: int) -> Iterator[int]:
    """The processes that a process started, and those that they started; the last ones first."""
    parents: dict[int, list[int]] = {}
    for number in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(number))

    def below(parent: int) -> Iterator[int]:
        for child in parents.get(parent, ()):
            yield from below(child)
            yield child

    yield from below(pid)


def stop(process: "subprocess.Popen[str]", number: int = signal.SIGKILL) -> None:
    """Sends a signal to a command that `Host.start` has started, and waits for its end."""
    for pid in list(descendants(process.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    process.wait()
