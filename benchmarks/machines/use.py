"""Using the hosts: a command or a terminal on the first one, and how fast their network is."""

import argparse
import json
import subprocess
import sys
from typing import Any

from benchmarks.machines.lab.cluster import used
from benchmarks.machines.lab.hosts import (
    HERE,
    SHARED,
    SHARED_FIRST,
    SLOW,
    Lab,
    Link,
    read_ready,
    stop,
)
from benchmarks.timing import save

HELLO = f"""\
Hosts: {{hosts}}. You are on the first; `ssh HOST COMMAND` runs a command on another one.
The shared disk is {SHARED_FIRST} here, and {SHARED} there. What else you write stays on a host.
"""


def probe(link: Link | None) -> dict[str, Any]:
    """How fast the network is between two hosts, and what the link takes of a core meanwhile."""
    program = [sys.executable, "-I", HERE / "probe.py"]
    with Lab(2, link=link) as lab:
        first, second = lab.hosts
        answering = second.start([*program, "--answer"], stdout=subprocess.PIPE)
        read_ready(answering)
        before = used([lab.holders[-1].pid])
        done = first.run([*program, second.name])
        assert done.returncode == 0, done.stderr
        figures: dict[str, Any] = json.loads(done.stdout)
        if link is not None:
            figures["link_core_seconds"] = used([lab.holders[-1].pid]).since(before)
        stop(answering)
    return figures


def run_link(options: argparse.Namespace) -> int:
    figures = {"cable": probe(None), "slow": probe(SLOW), "asked": SLOW._asdict()}
    print(json.dumps(figures, indent=2))
    if options.save:
        save("machines_link", "python -m benchmarks.machines link --save", figures)
    return 0


def run_shell(options: argparse.Namespace) -> int:
    with Lab(options.hosts, SLOW if options.slow else None, not options.no_shared) as lab:
        if not options.command:
            print(HELLO.format(hosts=", ".join(host.name for host in lab.hosts)), file=sys.stderr)
        command = options.command or ["bash", "--norc"]
        prompt = {"PS1": "me@\\h \\w $ "}
        process = lab.hosts[0].start(command, core=lab.cores, environment=prompt)
        try:
            return process.wait()
        finally:
            stop(process)


def add(commands: Any) -> None:
    """Declares the options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "shell", help="a terminal, or a command, on the first of some hosts"
    )
    parser.add_argument("--hosts", type=int, default=3)
    parser.add_argument("--slow", action="store_true", help="100 Mbit/s, and 20 ms one way")
    parser.add_argument("--no-shared", action="store_true", help="without a shared disk")
    parser.add_argument("command", nargs="*", help="instead of a terminal; after --")
    parser.set_defaults(run=run_shell)
    parser = commands.add_parser("link", help="how fast the network of the hosts is")
    parser.add_argument("--save", action="store_true", help="keep the figures")
    parser.set_defaults(run=run_link)
