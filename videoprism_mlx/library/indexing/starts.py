"""The beginning of each video: it is claimed, looked at, and recognised if it is known."""

import dataclasses
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from videoprism_mlx.errors import EXPECTED, LibraryError, OutputError, VideoError
from videoprism_mlx.library.indexing.claims import Claims
from videoprism_mlx.library.indexing.recognise import (
    BUSY,
    MOVED,
    UNCHANGED,
    Outcome,
    Recognition,
    is_same,
    is_same_file,
)
from videoprism_mlx.library.indexing.scan import File, checksum, is_gone, look
from videoprism_mlx.library.indexing.view import Known, View, path_id
from videoprism_mlx.library.indexing.windows import Opening


@dataclasses.dataclass
class Started:
    """A claimed video. Without an outcome and an error, it is to be encoded.

    `opening` is set if it is encoded in this process.
    """

    file: File
    claimed: tuple[str, ...]
    outcome: Outcome | None = None
    opening: Opening | None = None
    error: Exception | None = None
    checksum: str = ""

    @property
    def is_known(self) -> bool:
        """Whether it is clear already what becomes of it."""
        return self.outcome is not None or self.error is not None


class Starts:
    """Begins videos. Threads share it. `opened` opens those that are encoded in this process."""

    def __init__(self, view: View, claims: Claims, opened: Callable[[Path], Opening | None]):
        self.view, self.claims, self._opened = view, claims, opened
        self._known = Recognition(view)
        self._contents: dict[str, str] = {}  # The path of each content that is being encoded.
        self._lock = threading.Lock()

    def start(self, file: File) -> Started:
        """Claims a video and, unless it is known by now, begins to read it."""
        known = self.view.by_path.get(file.key)
        identity = known.id if known else self.view.id_for(file.key)
        claimed = tuple(dict.fromkeys([path_id(file.key), identity]))
        if not self.claims.take(*claimed):
            return Started(file, (), Outcome(file, BUSY))
        self.view.refresh(file.key, claimed[-1])
        try:
            return self._started(file, claimed)
        except (LibraryError, OutputError):  # Not of this video, but of all.
            raise
        except EXPECTED as error:
            return Started(file, claimed, error=error)

    def _started(self, file: File, claimed: tuple[str, ...]) -> Started:
        known = self.view.by_path.get(file.key)
        identity = known.id if known else self.view.id_for(file.key)
        if identity not in claimed:  # Another process has just moved it.
            return Started(file, claimed, Outcome(file, BUSY))
        file = look(file.path)
        if file.key != os.fspath(file.path):
            raise VideoError(f"{file.path} cannot be kept: its name is not UTF-8; rename it")
        if known is not None and is_same(known, file):
            return Started(file, claimed, self._known.found_again(file, known, {}))
        content = checksum(file.path)
        values = {"size": file.size, "modified": file.modified, "checksum": content}
        if known is not None and not known.error and known.checksum == content:
            return Started(file, claimed, self._known.found_again(file, known, values))
        if (same := self._known.same(file, content)) is not None:
            if known is not None:
                return Started(file, claimed, self._known.copied(file, same, values, known))
            return self._started_again(file, claimed, same, values)
        with self._lock:
            owner = self._contents.setdefault(content, file.key)
        if owner != file.key:  # It is copied when that one is done.
            return Started(file, claimed, Outcome(file, BUSY))
        try:
            opening = self._opened(file.path)
        except EXPECTED as error:
            return Started(file, claimed, error=error, checksum=content)
        return Started(file, claimed, opening=opening, checksum=content)

    def _started_again(
        self, file: File, claimed: tuple[str, ...], same: Known, values: dict[str, Any]
    ) -> Started:
        """A file whose content the library has: another name of it, moved here, or a copy."""
        if not is_gone(same.path):
            if is_same_file(same.path, file.path):
                return Started(file, claimed, Outcome(file, UNCHANGED))
            return Started(file, claimed, self._known.copied(file, same, values))
        if same.id not in claimed and not self.claims.take(same.id):
            return Started(file, claimed, Outcome(file, BUSY))
        claimed = tuple(dict.fromkeys((*claimed, same.id)))
        self.view.refresh(same.path, same.id)
        if self.view.by_id.get(same.id) != same:  # Another process was faster.
            return Started(file, claimed, Outcome(file, BUSY))
        values |= {"path": file.key}
        return Started(file, claimed, self._known.found_again(file, same, values, MOVED))
