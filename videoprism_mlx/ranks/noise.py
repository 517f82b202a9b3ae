"""What MLX's ring prints while it fails, which would bury the error."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from videoprism_mlx.errors import printable


class Noise:
    """Keeps what native code prints to stderr in a block off the screen, whose file is `screen`."""

    def __init__(self) -> None:
        self.screen = os.dup(2)
        self._aside = tempfile.TemporaryFile()  # noqa: SIM115  # It is open as long as this is.

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Puts aside what is printed to stderr in the block."""
        os.dup2(self._aside.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(self.screen, 2)

    def say(self, text: str) -> None:
        """Prints a line as a command does, below its progress bar if there is one."""
        below = "\n" if os.isatty(self.screen) else ""
        with suppress(OSError):
            os.write(self.screen, f"{below}videoprism-mlx: {printable(text)}\n".encode())

    def show(self) -> None:
        """Prints what was put aside."""
        self._aside.seek(0)
        os.write(self.screen, self._aside.read())

    def close(self) -> None:
        """Puts nothing aside any more."""
        os.close(self.screen)
        self._aside.close()
