"""Opening a video at a time, in a player that can."""

import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from videoprism_mlx.errors import NotFoundError

# Players, in the order of preference, and how each takes the file and the seconds to start at.
PLAYERS = (
    ("iina", "--mpv-start={seconds}", "{path}"),
    ("mpv", "--start={seconds}", "{path}"),
    ("vlc", "--start-time={seconds}", "{path}"),
)

# Where the players of a Mac are, which are not on the PATH.
ON_MAC = {
    "iina": "/Applications/IINA.app/Contents/MacOS/iina-cli",
    "vlc": "/Applications/VLC.app/Contents/MacOS/VLC",
}


# A program that cannot open a file says so within these seconds.
PATIENCE = 1.0


def open_at(path: str, seconds: float) -> None:
    """Opens a video at a time, or at its beginning if no player is known that can do more."""
    if not Path(path).exists():
        raise NotFoundError(f"{path} is gone, so it cannot be opened; index its folder again")
    quiet, chosen = subprocess.DEVNULL, command(path, seconds)
    player = subprocess.Popen(
        chosen, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
    )
    with suppress(subprocess.TimeoutExpired):  # It plays.
        if code := player.wait(PATIENCE):
            program = Path(chosen[0]).name
            raise NotFoundError(
                f"{program} could not open {path} (it ended with {code}); install mpv or VLC"
            )


def command(path: str, seconds: float) -> list[str]:
    """The command that opens a video."""
    for name, *arguments in PLAYERS:
        program = shutil.which(name)
        if program is None and Path(ON_MAC.get(name, "")).is_file():
            program = ON_MAC[name]
        if program is not None:
            # Paths may hold braces.
            said = {"{path}": path}
            return [
                program,
                *(said.get(one, one.replace("{seconds}", f"{seconds:.2f}")) for one in arguments),
            ]
    opener = "open" if sys.platform == "darwin" else "xdg-open"
    program = shutil.which(opener)
    if program is None:
        raise NotFoundError(f"there is no program to open {path} with; install mpv or VLC")
    return [program, path]
