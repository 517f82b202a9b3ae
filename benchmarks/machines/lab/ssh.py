"""A stand-in for ssh and its server between the hosts, as much of them as mlx.launch needs.

    ssh [-t] [-tt] [-o OPTION] HOST COMMAND
    python ssh.py --serve

Commands run in bash, with the short PATH of one who logs in, and with -tt in a terminal, which
hangs up when the connection ends. Anyone may log in: nobody else can reach these hosts.
"""

import contextlib
import json
import os
import pty
import select
import shlex
import signal
import socket
import struct
import subprocess
import sys

PORT = 22
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
OUT, ERRORS, CODE = 1, 2, 3
WITH_VALUE = "opilFJ"  # The options that take a value.


def send(connection: socket.socket, kind: int, data: bytes) -> None:
    connection.sendall(struct.pack("!BI", kind, len(data)) + data)


def serve() -> None:
    """Answers connections, each in a process of its own."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.create_server(("", PORT), backlog=64) as server:
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                server.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                try:
                    answer(connection)
                finally:
                    os._exit(0)
            connection.close()


def answer(connection: socket.socket) -> None:
    """Runs the command that the other side asks for."""
    line = b""
    while not line.endswith(b"\n"):
        piece = connection.recv(1)
        if not piece:
            return
        line += piece
    asked = json.loads(line)
    home = "/Users/me"
    environment = {
        "HOME": home,
        "USER": "me",
        "PATH": PATH,
        "LANG": "C.UTF-8",
        "SHELL": "/bin/bash",
    }
    if asked["terminal"]:
        environment["TERM"] = asked["terminal"]
        pid, master = pty.fork()
        if pid == 0:
            os.chdir(home)
            os.execve("/bin/bash", ["bash", "-c", asked["command"]], environment)
        pass_on(connection, {master: OUT}, master, hangs_up=True)
        os.close(master)  # The terminal hangs up.
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
    else:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        command = ["/bin/bash", "-c", asked["command"]]
        child = subprocess.Popen(command, cwd=home, env=environment, bufsize=0, **pipes)
        assert child.stdin and child.stdout and child.stderr
        outputs = {child.stdout.fileno(): OUT, child.stderr.fileno(): ERRORS}
        entry = os.dup(child.stdin.fileno())
        child.stdin.close()
        pass_on(connection, outputs, entry, hangs_up=False)
        code = child.wait()
    send(connection, CODE, struct.pack("!i", code if code >= 0 else 128 - code))


def pass_on(
    connection: socket.socket, outputs: "dict[int, int]", entry: int, hangs_up: bool
) -> None:
    """Passes on what the command prints and is told, until it prints no more, or the other side
    hangs up."""
    sources, outputs = {connection.fileno(), *outputs}, dict(outputs)
    while outputs:
        for number in select.select(list(sources), [], [])[0]:
            try:
                data = os.read(number, 65536)
            except OSError:  # A terminal whose last process has ended.
                data = b""
            if number == connection.fileno():
                if not data:
                    if hangs_up:
                        return
                    os.close(entry)
                    sources.discard(number)
                    continue
                with contextlib.suppress(OSError):  # It has closed its input.
                    os.write(entry, data)
            elif data:
                send(connection, outputs[number], data)
            else:
                sources.discard(number)
                del outputs[number]


def parsed(words: "list[str]") -> "tuple[str, str, bool]":
    """The host, the command, and whether it wants a terminal."""
    terminal = False
    while words and words[0].startswith("-"):
        option = words.pop(0)
        terminal |= option in ("-t", "-tt")
        if option[1] in WITH_VALUE and len(option) == 2:
            words.pop(0)
    if len(words) < 2:
        sys.exit("usage: ssh [-tt] [-o OPTION] HOST COMMAND")
    return words[0].rpartition("@")[2], " ".join(words[1:]), terminal


def receive(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            sys.exit(255)
        data += piece
    return data


def main() -> None:
    if sys.argv[1:] == ["--serve"]:
        serve()
    host, command, terminal = parsed(sys.argv[1:])
    try:
        connection = socket.create_connection((host, PORT), timeout=30)
    except OSError as error:
        sys.exit(f"ssh: connect to host {shlex.quote(host)} port {PORT}: {error}")
    connection.settimeout(None)
    asked = {"command": command, "terminal": os.environ.get("TERM", "dumb") if terminal else ""}
    connection.sendall(json.dumps(asked).encode() + b"\n")
    sources = [connection.fileno(), 0]
    while True:
        ready = select.select(sources, [], [])[0]
        if 0 in ready:
            data = os.read(0, 65536)
            if data:
                connection.sendall(data)
                continue
            sources.remove(0)
            if not terminal:  # Otherwise, the end of the connection ends the command.
                connection.shutdown(socket.SHUT_WR)
        if connection.fileno() in ready:
            kind, count = struct.unpack("!BI", receive(connection, 5))
            data = receive(connection, count)
            if kind == CODE:
                sys.exit(struct.unpack("!i", data)[0] & 0xFF)
            os.write(1 if kind == OUT else 2, data)


if __name__ == "__main__":
    main()
