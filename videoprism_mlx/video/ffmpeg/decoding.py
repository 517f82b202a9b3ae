"""How a video file is decoded, apart from which frames are taken."""

import dataclasses
from typing import Any

from videoprism_mlx.errors import InputError, InputTypeError, whole_number

HARDWARE = ("off", "auto")

# Which decoder made the frames that features were made of. Earlier versions, without this in their
# records, used OpenCV: it took the colours of most HD video for others.
READER = "ffmpeg"


@dataclasses.dataclass(frozen=True)
class Decoding:
    """Which stream of a video file is decoded, and how.

    `stream` is the number of a video stream; None is the one that players show. `tone_map` brings
    the colours of HDR video (PQ, HLG) to those of ordinary screens. With `hardware="auto"` the
    machine's own decoder is used where it has one for the codec.
    """

    stream: int | None = None
    tone_map: bool = False
    hardware: str = "off"

    def __post_init__(self) -> None:
        if self.hardware not in HARDWARE:
            raise InputError(
                f"hardware is {self.hardware!r}; expected one of {', '.join(HARDWARE)}"
            )
        if not isinstance(self.tone_map, bool):
            raise InputTypeError(f"tone_map is {self.tone_map!r}; expected True or False")
        if self.stream is not None:
            number = whole_number(self.stream, "stream")
            if number < 0:
                raise InputError(f"stream is {number}; expected the number of a stream, from 0")
            object.__setattr__(self, "stream", number)  # NumPy's numbers cannot be stored.

    def record(self) -> dict[str, Any]:
        """The reader, and the settings that are not the default, for a record."""
        settings = [(one, getattr(self, one.name)) for one in dataclasses.fields(self)]
        changed = {one.name: value for one, value in settings if value != one.default}
        return {"reader": READER, **changed}


PLAIN = Decoding()
