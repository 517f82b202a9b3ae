"""Who works on a video: one process at a time, and what killed processes have left."""

import threading
from collections.abc import Sequence
from pathlib import Path

from videoprism_mlx.files.lock import Claim
from videoprism_mlx.library.table import LOCKS, MOMENTS, Tables, is_remote, quoted

SUFFIX = ".lock"


class Claims:
    """The claims of a process on videos of a library. In a bucket there are none."""

    def __init__(self, place: str):
        self._folder = None if is_remote(place) else Path(place) / LOCKS
        self._held: dict[str, Claim | None] = {}
        self._lock = threading.Lock()

    def take(self, *ids: str) -> bool:
        """Claims videos by their ids: all of them, or none if somebody holds one of them."""
        taken = []
        for identity in dict.fromkeys(ids):
            with self._lock:
                if identity in self._held:
                    is_free = False
                else:
                    claim = None
                    if self._folder is not None:
                        claim = Claim.take(self._folder / f"{identity}{SUFFIX}")
                    is_free = claim is not None or self._folder is None
                    if is_free:
                        self._held[identity] = claim
                        taken.append(identity)
            if not is_free:
                self.release(*taken)
                return False
        return True

    def release(self, *ids: str) -> None:
        """Gives claims back."""
        with self._lock:
            for identity in ids:
                claim = self._held.pop(identity, None)
                if claim is not None:
                    claim.release()

    def release_all(self) -> None:
        """Gives all claims back."""
        self.release(*list(self._held))

    def left(self) -> list[str]:
        """The ids of videos that are claimed by others, or by processes that were killed."""
        if self._folder is None or not self._folder.is_dir():
            return []
        names = (path.name for path in self._folder.iterdir() if path.name.endswith(SUFFIX))
        return sorted(name.removesuffix(SUFFIX) for name in names)


def clear_up(tables: Tables, claims: Claims) -> None:
    """Removes the moments that killed processes have left: those of takes that no row names."""
    for identity in claims.left():
        if claims.take(identity):
            try:
                tables.refresh()
                remove_others(tables, identity)
            finally:
                claims.release(identity)


def remove_others(tables: Tables, identity: str, takes: Sequence[int] | None = None) -> None:
    """Removes the moments of a video but for those of its take. `takes` limits which."""
    rows = tables.rows(f"id = {quoted(identity)}", ["id", "take"])
    condition = f"video = {quoted(identity)}"
    if rows:
        condition += f" AND take != {max(row['take'] for row in rows)}"
    if takes is not None:
        condition += f" AND take IN ({', '.join(map(str, takes))})"
    if tables.moments.count_rows(condition):
        tables.remove(MOMENTS, condition)
