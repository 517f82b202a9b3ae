"""What `mkdocs build` does besides: pages from outside docs/, public names, a check of the site."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

import videoprism_mlx

ROOT = Path(__file__).parents[1]
HOUSE = ROOT / "build" / "house" / "videoprism_mlx"

# Pages that lie at the top of the repository, where GitHub shows them.
OUTSIDE = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "guide.md": "FLAX_TO_MLX_CONVERSION_GUIDE.md",
}
PICTURE = "examples/demo.png"

# `::: vp.read_video` on a page stands for the documentation of that public name, and
# `::: vp.features.Window` for that of a name in a room, whatever module it is in.
NAME = re.compile(r"^::: vp\.(?:(\w+)\.)?(\w+)$", re.MULTILINE)

# Attributes with which a page makes the browser fetch something.
FETCHING = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages and the picture that lie outside docs/."""
    for page, source in OUTSIDE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=relinked(text)))
    content = (ROOT / PICTURE).read_bytes()
    files.append(File.generated(config, Path(PICTURE).name, content=content))
    return files


def relinked(text: str) -> str:
    """Links between files of the repository as links between pages."""
    pages = {source: page for page, source in OUTSIDE.items()} | {"README.md": "index.md"}
    for source, page in pages.items():
        text = text.replace(f"]({source}", f"]({page}")
    return text.replace("](docs/", "](")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Gives names the address of the module that they live in, and pictures theirs on the site."""
    markdown = markdown.replace(f"](../{PICTURE})", f"]({Path(PICTURE).name})")
    return NAME.sub(lambda found: documentation_of(found[1], found[2]), markdown)


def documentation_of(room: str | None, name: str) -> str:
    """What mkdocstrings takes for a name."""
    home = module_of(room, name) if room else videoprism_mlx._HOME_OF.get(name)
    if home is None:
        raise PluginError(f"docs: videoprism_mlx has no {room or 'public name'} {name}")
    heading = f"{room}.{name}" if room else name
    options = f'heading: "{heading}", toc_label: "{heading}"'
    return f"::: videoprism_mlx.{home}.{name}\n    options: {{{options}}}"


def module_of(room: str, name: str) -> str | None:
    """The module of a room that defines a name. A room may be one module."""
    definition = re.compile(rf"^(class|def) {name}\b", re.MULTILINE)
    for path in (HOUSE / f"{room}.py", *sorted((HOUSE / room).rglob("*.py"))):
        if not path.is_file():
            continue
        if definition.search(path.read_text(encoding="utf-8")):
            return ".".join(path.relative_to(HOUSE).with_suffix("").parts)
    return None


class Fetched(HTMLParser):
    """Collects what a page fetches from other servers."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = dict(attrs).get(FETCHING.get(tag, "")) or ""
        is_canonical = ("rel", "canonical") in attrs
        if re.match(r"(https?:)?//", address) and not is_canonical:
            self.found.append(address)


def on_post_build(config: Any) -> None:
    """Checks that the site needs no other server."""
    for page in Path(config["site_dir"]).rglob("*.html"):
        parser = Fetched()
        parser.feed(page.read_text(encoding="utf-8"))
        if parser.found:
            raise PluginError(f"docs: {page.name} fetches from outside: {parser.found[0]}")
