"""How much each worker has done, and how fast: for a bar, and for the end."""

import dataclasses
import time

from videoprism_mlx.errors import counted, printable

# How much of a worker's name a bar shows.
NAME = 12


@dataclasses.dataclass
class Rate:
    """What a worker has done from `begun` until `ended`, on a clock of seconds."""

    begun: float
    ended: float
    tasks: int = 0
    video: float = 0.0  # Seconds.

    @property
    def speed(self) -> float:
        """Seconds of video in a second."""
        return self.video / max(self.ended - self.begun, 1e-3)


class Rates:
    """What each worker has done, by its name."""

    def __init__(self) -> None:
        self._rates: dict[str, Rate] = {}

    def count(self, worker: str, seconds: float, video: float) -> None:
        """A worker has just done a task, which took so many seconds, with so much video."""
        now = time.monotonic()
        rate = self._rates.setdefault(worker, Rate(now - seconds, now))
        rate.ended = now
        rate.tasks += 1
        rate.video += video

    def short(self, most: int) -> str:
        """Each worker's speed, as in `mac1 34x, mac2 21x`; of all if that is longer than `most`."""
        each = [f"{printable(name)[:NAME]} {speed_of(rate.speed)}" for name, rate in self._named()]
        whole = ", ".join(each)
        if len(whole) <= most:
            return whole
        total = sum(rate.speed for rate in self._rates.values())
        return f"{counted(len(each), 'worker')} {speed_of(total)}"

    def lines(self, noun: str = "task") -> list[str]:
        """A line about each worker."""
        return [
            f"{printable(name)}: {counted(rate.tasks, noun)}, {rate.video:,.0f} s of video, "
            f"{speed_of(rate.speed)} real time"
            for name, rate in self._named()
        ]

    def _named(self) -> list[tuple[str, Rate]]:
        return sorted(self._rates.items())


def speed_of(speed: float) -> str:
    """A speed for people."""
    return f"{speed:,.0f}x" if speed >= 10 else f"{speed:.1f}x"
