"""Another process that runs commands and Python, one after the other, and says what came of it.

huggingface_hub reads HF_ENDPOINT when it is imported, so the process of the tests cannot talk to a
stand-in of the Hub. One process for many commands imports MLX once.
"""

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import Any, NamedTuple

if __name__ != "__main__":
    import hub_standin


class Said(NamedTuple):
    """What a command has returned and printed, and how long it took."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def line(self) -> str:
        """What it says on stderr, which must be one line."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        return lines[0]


class Console:
    """The other process."""

    def __init__(self, address: str, home: Path):
        environment = hub_standin.environment(address, home)
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def run(self, *arguments: object, token: str | None = "hf_you") -> Said:
        """Runs a command of videoprism-mlx, as the user of that token."""
        return Said(**self._ask({"command": [*map(str, arguments)], "token": token or ""}))

    def python(self, code: str, **values: Any) -> Any:
        """Runs Python, and returns what it calls `result`, by way of JSON."""
        return self._ask({"python": code, "values": values, "token": "hf_you"})

    @contextmanager
    def without_waiting(self) -> Iterator[None]:
        """In the block, the process does not wait before it tries something again."""
        self.python("import time; time.waits, time.sleep = time.sleep, lambda _: None")
        yield
        self.python("import time; time.sleep = time.waits")

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate(timeout=30)

    def _ask(self, asked: dict[str, Any]) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer["result"]


def main() -> None:
    """Answers what is asked on stdin, a line each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from videoprism_mlx import cli

    for line in sys.stdin:
        asked = json.loads(line)
        os.environ["HF_TOKEN"] = asked["token"]
        try:
            if "python" in asked:
                scope: dict[str, Any] = dict(asked["values"])
                exec(asked["python"], scope)
                answer = json.dumps({"result": scope.get("result")})
            else:
                answer = json.dumps({"result": run(cli.main, asked["command"])})
        except Exception:
            answer = json.dumps({"error": traceback.format_exc()})
        print(answer, file=answers, flush=True)


def run(command: Callable[[list[str]], int], arguments: list[str]) -> dict[str, Any]:
    """What a command has returned and printed."""
    out, err = StringIO(), StringIO()
    started = time.perf_counter()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = command(arguments)
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    seconds = time.perf_counter() - started
    return dict(code=code, out=out.getvalue(), err=err.getvalue(), seconds=seconds)


if __name__ == "__main__":
    assert isinstance(sys.stdin, TextIOWrapper)
    main()
