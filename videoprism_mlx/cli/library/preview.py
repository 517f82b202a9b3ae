"""Pictures in the terminal: the protocols of iTerm2, kitty and sixel."""

import base64
import io
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

Paint = Callable[[bytes], None]

# How high a picture is: lines, and pixels for sixel.
LINES, PIXELS = 8, 160

# How many characters kitty takes at once.
CHUNK = 4096

# Terminals that show sixel pictures, by the beginning of TERM, or TERM_PROGRAM.
SIXEL_TERMS = ("foot", "mlterm", "contour", "yaft")


def painter() -> Paint | None:
    """What prints a JPEG on stdout; None if stdout is no terminal, or none that shows pictures."""
    if not (sys.stdout and sys.stdout.isatty()):
        return None
    sequence = protocol(os.environ)
    if sequence is None:
        return None

    def paint(picture: bytes) -> None:
        sys.stdout.write(f"{sequence(picture)}\n")

    return paint


def protocol(environment: Mapping[str, str]) -> Callable[[bytes], str] | None:
    """The function that makes a JPEG a text for the terminal that the environment names."""
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if "TMUX" in environment or term.startswith(("screen", "tmux")):
        return None  # They keep pictures from the terminal.
    if "KITTY_WINDOW_ID" in environment or term == "xterm-kitty" or program == "ghostty":
        return kitty
    if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
        return iterm
    if "sixel" in term or term.startswith(SIXEL_TERMS) or program == "mintty":
        return sixel
    return None


def iterm(picture: bytes) -> str:
    """A picture for iTerm2 and WezTerm."""
    encoded = base64.b64encode(picture).decode()
    return f"\x1b]1337;File=inline=1;size={len(picture)};height={LINES}:{encoded}\a"


def kitty(picture: bytes) -> str:
    """A picture for kitty, as PNG, in pieces."""
    written = io.BytesIO()
    opened(picture).save(written, "png")
    encoded = base64.b64encode(written.getvalue()).decode()
    pieces = [encoded[i : i + CHUNK] for i in range(0, len(encoded), CHUNK)]
    keys = [f"a=T,f=100,r={LINES},", *[""] * (len(pieces) - 1)]
    more = [*[1] * (len(pieces) - 1), 0]
    return "".join(
        f"\x1b_G{key}m={left};{piece}\x1b\\"
        for key, left, piece in zip(keys, more, pieces, strict=True)
    )


def sixel(picture: bytes) -> str:
    """A picture in sixels: bands of six rows, a layer for each of at most 64 colours."""
    import numpy as np

    image = opened(picture)
    image = image.resize((max(1, image.width * PIXELS // image.height), PIXELS))
    reduced = image.quantize(64)
    palette = np.array(reduced.getpalette()).reshape(-1, 3)
    pixels = np.asarray(reduced)
    drawn = ["\x1bPq", f'"1;1;{reduced.width};{reduced.height}']
    drawn += [
        f"#{number};2;{red};{green};{blue}"
        for number, (red, green, blue) in enumerate((palette * 100 // 255).tolist())
    ]
    bits = 1 << np.arange(6)[:, None]
    for top in range(0, len(pixels), 6):
        band = pixels[top : top + 6]
        for colour in np.unique(band).tolist():
            columns = ((band == colour) * bits[: len(band)]).sum(axis=0)
            drawn.append(f"#{colour}{runs(columns.tolist())}$")
        drawn.append("-")
    return "".join([*drawn, "\x1b\\"])


def runs(columns: list[int]) -> str:
    """Sixels of one colour, repeated ones as a count."""
    import itertools

    said = []
    for value, group in itertools.groupby(columns):
        count, letter = len(list(group)), chr(63 + value)
        said.append(f"!{count}{letter}" if count > 3 else letter * count)
    return "".join(said)


def opened(picture: bytes) -> "Image":
    """A JPEG as an image."""
    from PIL import Image

    return Image.open(io.BytesIO(picture)).convert("RGB")
