"""Names and messages as they are printed: what a stranger wrote cannot steer the terminal."""

import json
import unicodedata
from typing import Any

# Control characters, halves of characters, and ends of lines and paragraphs.
UNSAFE_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")

# What changes the direction of the text that follows.
DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def is_unsafe(character: str) -> bool:
    """Whether a character may move the cursor or hide other text, or cannot be encoded."""
    return unicodedata.category(character) in UNSAFE_CATEGORIES or character in DIRECTIONS


def printable(text: object) -> str:
    r"""A name on one line, with an escape such as \x1b or \udcff for each unsafe character."""
    return "".join(
        one.encode("unicode_escape").decode() if is_unsafe(one) else one for one in str(text)
    )


def printable_lines(text: object) -> str:
    """As `printable`, of a message that may have several lines."""
    return "\n".join(map(printable, str(text).split("\n")))


def json_text(value: Any, indent: int | None = None) -> str:
    """A value as JSON that can be written as UTF-8, with characters as they are if possible."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:  # A file's name has bytes that are not UTF-8.
        return json.dumps(value, indent=indent)
    return text
