"""A real browser for the tests of the page: Chromium, through Playwright."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str:
    """The path of Chromium. Skips the test where there is none, or where it does not start."""
    pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    program = next((path for name in NAMES if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("there is no Chromium on the PATH")
    if subprocess.run([program, "--version"], capture_output=True, check=False).returncode:
        pytest.skip(f"{program} does not start")
    return program


@contextlib.contextmanager
def launched() -> Iterator[Any]:
    """A browser that runs."""
    program = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--mute-audio", "--disable-gpu"]  # It draws in software anyway.
        options += ["--autoplay-policy=no-user-gesture-required"]
        browser = playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


class Watched:
    """A page of a browser, and what went wrong on it: errors, and requests to elsewhere."""

    def __init__(self, browser: Any, address: str, **options: Any):
        options.setdefault("viewport", {"width": 1200, "height": 800})
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)  # It is patient on a busy machine.
        self.address = address
        self.wrong: list[str] = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: self.wrong.append(f"a dialog: {dialog.message}"))
        self.page.on("request", self._asked)

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(message.text)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.address, "blob:")):
            self.wrong.append(f"a request to {request.url}")

    def open(self, path: str = "/") -> Any:
        """The page at an address."""
        self.page.goto(self.address + path)
        return self.page

    def plays(self, where: str, after: float = 0.0) -> float:
        """Waits until the time of a video advances, and returns it."""
        script = (
            "([where, after]) => { const one = document.querySelector(where);"
            " return one && one.videoWidth > 0 && one.currentTime > after && one.currentTime; }"
        )
        return float(self.page.wait_for_function(script, arg=[where, after]).json_value())

    def close(self) -> None:
        """Ends it. Nothing may have gone wrong."""
        self.context.close()
        assert self.wrong == []
