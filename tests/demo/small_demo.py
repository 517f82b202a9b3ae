"""A small demo for several test modules, and what its queries mean."""

import contextlib
import functools
import socket
import tempfile
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from videoprism_mlx.demo.results import Demo
from videoprism_mlx.demo.scenes import Scene
from videoprism_mlx.demo.search import run_demo

COUNT = 14  # Those that are placed, and one at random.

# What each query means, written in another way than in the demo.
MEANT: dict[str, Callable[[Scene], bool]] = {
    "a yellow heart": lambda scene: has(scene, "heart", "yellow"),
    "something spinning": lambda scene: has(scene, "spinning"),
    "a big blue star moves left at night": lambda scene: (
        has(scene, "star", "blue", "large", "left") and scene.background == "night sky"
    ),
    "a pink square moves left": lambda scene: has(scene, "square", "pink", "left"),
    "a pink square moves right": lambda scene: has(scene, "square", "pink", "right"),
    "something flashing on and off": lambda scene: has(scene, "blinking"),
    "something stripy on the beach": lambda scene: (
        has(scene, "striped") and scene.background == "sand"
    ),
    "a red square next to an orange ball": lambda scene: (
        has(scene, "square", "red") and has(scene, "circle", "orange")
    ),
}


def has(scene: Scene, *attributes: str) -> bool:
    """Whether one thing of a scene has all these attributes."""
    return any(set(attributes) <= set(thing) for thing in scene.things)


@contextlib.contextmanager
def without_network() -> Iterator[None]:
    def refuse(*_: Any) -> None:
        raise AssertionError("the demo used the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        yield


FOLDER = tempfile.TemporaryDirectory()  # Removed when the tests end.


@functools.cache
def small_demo() -> Demo:
    """A small demo, made once, without a network."""
    with without_network():
        return run_demo(Path(FOLDER.name) / "new" / "folder", count=COUNT)


class Page(HTMLParser):
    """A page whose elements are all closed, in order."""

    VOID = ("meta", "img", "source", "br", "link")

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[Any]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.text.setdefault(tag, [])
        if tag not in self.VOID:
            self.open.append(tag)
            self.text[tag].append("")

    def handle_startendtag(self, tag: str, attrs: list[Any]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.text[tag][-1] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]
