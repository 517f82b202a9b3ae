"""Going from frame to frame of a video file, and comparing each with the index."""

from collections.abc import Iterable
from typing import Any

from videoprism_mlx.video.ffmpeg.decoder import Decoder
from videoprism_mlx.video.ffmpeg.index import Index

# To go further ahead than this, seeking is cheaper than decoding: a seek starts at a key frame, and
# encoders rarely set key frames further apart. What lies between is not checked for damage then.
SEEK_BEYOND = 300


class Walker:
    """Makes the frames of an index, by number, come out of a decoder: `frame` is the last one.

    `is_counted` says that the index comes from the frames themselves, and `can_leave_out` that
    frames which nothing needs need not be decoded.
    """

    def __init__(self, decoder: Decoder, index: Index):
        self.index = index
        self.frame: Any = None
        self.is_counted = False
        self.can_seek = True
        self.can_leave_out = True
        self._decoder = decoder
        self._begin(-1)

    @property
    def has_seen_all(self) -> bool:
        """Whether the frames come from the beginning on, without a seek."""
        return self._key < 0

    def only(self, numbers: Iterable[int]) -> list[int]:
        """The same numbers. From here on, other frames are decoded where these need them."""
        listed = [int(number) for number in numbers]
        self.can_leave_out &= self.index.is_exact and not self.is_counted
        # The last frame shows that the file is complete.
        wanted = {int(self.index.clocks[number]) for number in (*listed, -1)}
        self._decoder.wanted = wanted if self.can_leave_out else None
        return listed

    def go_to(self, number: int) -> bool:
        """Goes to a frame. False if the frames, from the first on, are not those of the index."""
        index, ahead = self.index, number - self._position
        key = index.key_of(number) if index.is_exact and self.can_seek else -1
        is_left_out = ahead > 0 and int(index.clocks[number]) in self._decoder.left_out
        is_here = (
            ahead >= 0
            and not is_left_out
            and (
                key <= 0
                or ahead <= SEEK_BEYOND
                or index.keys[key] <= index.clocks[max(self._position, 0)]
            )
        )
        if not is_here:
            self.start_from(key, number)
        while not self._walk(number):
            if self._decoder.has_left_out:  # It may be a mistake to leave frames out.
                self._decoder.wanted, self.can_leave_out = None, False
                self.start_from(self._key, number)
                continue
            if self._key < 0:
                return False
            self.start_from(self._key - 1, number)
        return True

    def start_from(self, key: int, number: int) -> None:
        """Goes to that key frame or one before it, or to the start, to decode frame `number`."""
        for earlier in range(key, 0, -1):
            place = self._decoder.seek(self.index, earlier, int(self.index.clocks[number]))
            if place is not None:
                self._begin(place - 1, earlier, int(self.index.clocks[place]))
                return
        self._decoder.restart()
        self._begin(-1)

    def _begin(self, position: int, key: int = -1, since: int | None = None) -> None:
        """Frames are decoded from after number `position`.

        After a seek to key frame `key`, pictures before the clock `since` are guesses.
        """
        self._position, self._key, self._since = position, key, since

    def _walk(self, number: int) -> bool:
        """Decodes on to frame `number`. Whether it came, and each one before it as expected."""
        index = self.index
        if self._position >= number:
            return True
        for frame in self._decoder.frames:
            if frame is None:
                if self.is_counted or self._since is not None:
                    continue
                self._decoder.threads = False
                return False
            if self._since is not None and frame.pts is not None and frame.pts < self._since:
                continue
            self._position, self._since = self._following(), None
            if index.is_exact and frame.pts != index.clocks[self._position]:
                return False
            self.frame = frame
            if self._position == number:
                return True
        return False

    def _following(self) -> int:
        """The number of the frame that is decoded after the last one."""
        number, left_out = self._position + 1, self._decoder.left_out
        while left_out and int(self.index.clocks[number]) in left_out:
            left_out.discard(int(self.index.clocks[number]))
            number += 1
        return number
