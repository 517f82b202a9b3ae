"""Who works on a video: one process at a time. What killed processes have left is removed."""

import threading
from collections.abc import Sequence
from pathlib import Path

from videoprism_mlx.files.lock import Claim
from videoprism_mlx.library.storage import LOCKS, is_remote
from videoprism_mlx.library.table import MOMENTS, Tables, quoted

SUFFIX = ".lock"


class Claims:
    """The claims of a process on videos of a library. In a bucket there are none.

    Whoever claims a video after a process that was killed removes what that one has left of it.
    """

    def __init__(self, tables: Tables):
        self._tables = tables
        self._folder = None if is_remote(tables.where) else Path(tables.where) / LOCKS
        self._held: dict[str, Claim | None] = {}
        self._lock = threading.Lock()

    def take(self, *ids: str) -> bool:
        """Claims videos by their ids: all of them, or none if somebody holds one of them."""
        taken: list[str] = []
        for identity in dict.fromkeys(ids):
            if not self._taken(identity):
                self.release(*taken)
                return False
            taken.append(identity)
        return True

    def _taken(self, identity: str) -> bool:
        with self._lock:
            if identity in self._held:
                return False
            claim = None if self._folder is None else Claim.take(self._path(identity))
            if claim is None and self._folder is not None:
                return False
            self._held[identity] = claim
        if claim is not None and claim.was_left:
            try:
                remove_others(self._tables, identity)
            except BaseException:  # The next one who claims the video tries again.
                self.release(identity, is_done=False)
                raise
        return True

    def _path(self, identity: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{identity}{SUFFIX}"

    def release(self, *ids: str, is_done: bool = True) -> None:
        """Gives claims back. If the work is not done, the next who claims a video clears up."""
        with self._lock:
            for identity in ids:
                claim = self._held.pop(identity, None)
                if claim is not None:
                    claim.release(is_done)

    def release_all(self, is_done: bool = True) -> None:
        """Gives all claims back."""
        self.release(*list(self._held), is_done=is_done)

    def is_held(self, identity: str) -> bool:
        """Whether some process works on a video."""
        return self._folder is not None and Claim.is_held(self._path(identity))

    def clear_up(self) -> None:
        """Removes what killed processes have left: the moments of takes that no row names."""
        if self._folder is None or not self._folder.is_dir():
            return
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            identity = path.name.removesuffix(SUFFIX)
            if self.take(identity):
                self.release(identity)


def remove_others(tables: Tables, identity: str, takes: Sequence[int] | None = None) -> None:
    """Removes the moments of a video but for those of its take. `takes` limits which."""
    tables.refresh()
    rows = tables.rows(f"id = {quoted(identity)}", ["id", "take"])
    condition = f"video = {quoted(identity)}"
    if rows:
        condition += f" AND take != {max(row['take'] for row in rows)}"
    if takes is not None:
        condition += f" AND take IN ({', '.join(map(str, takes))})"
    if tables.moments.count_rows(condition):
        tables.remove(MOMENTS, condition)
