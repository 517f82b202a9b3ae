"""How much each worker has done, and how fast: for a bar, and for the end."""

import dataclasses
import time
from collections.abc import Collection

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
    def seconds(self) -> float:
        """How long it has worked."""
        return max(self.ended - self.begun, 1e-3)

    @property
    def speed(self) -> float:
        """Seconds of video in a second."""
        return self.video / self.seconds

    @property
    def a_minute(self) -> float:
        """Tasks in a minute."""
        return 60 * self.tasks / self.seconds

    def __str__(self) -> str:
        return speed_of(self.speed) if self.video else f"{self.a_minute:,.0f}/min"


class Rates:
    """What each worker has done, by its name."""

    def __init__(self) -> None:
        self._rates: dict[str, Rate] = {}

    def count(self, worker: str, seconds: float, video: float, tasks: int = 1) -> None:
        """A worker has just done tasks, which took so many seconds, with so much video.

        Without any video, tasks are what is counted.
        """
        now = time.monotonic()
        rate = self._rates.setdefault(worker, Rate(now - seconds, now))
        rate.ended = now
        rate.tasks += tasks
        rate.video += video

    def short(self, names: Collection[str], most: int) -> str:
        """Each one's speed, as in `mac1 34x, mac2 21x`; of all if that is longer than `most`."""
        rates = {name: rate for name, rate in self._named() if name in names}
        each = [f"{printable(name)[:NAME]} {rate}" for name, rate in rates.items()]
        whole = ", ".join(each)
        if len(whole) <= most:
            return whole
        video = sum(one.speed for one in rates.values())
        tasks = sum(one.a_minute for one in rates.values())
        said = speed_of(video) if video else f"{tasks:,.0f}/min"
        return f"{counted(len(each), 'worker')} {said}"

    def lines(self, noun: str = "task") -> list[str]:
        """A line about each worker."""
        return [
            f"{printable(name)}: {counted(rate.tasks, noun)}, "
            + (
                f"{rate.video:,.0f} s of video, {speed_of(rate.speed)} real time"
                if rate.video
                else f"{rate.a_minute:,.0f} a minute"
            )
            for name, rate in self._named()
        ]

    def _named(self) -> list[tuple[str, Rate]]:
        return sorted(self._rates.items())


def speed_of(speed: float) -> str:
    """A speed for people."""
    return f"{speed:,.0f}x" if speed >= 10 else f"{speed:.1f}x"
