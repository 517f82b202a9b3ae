"""Every snippet of the README, the docs and the guides runs, page by page, from top to bottom."""

import json
import os
import re
import runpy
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import standins

import videoprism_mlx as vp
from videoprism_mlx import cli, convert, mteb, pictures
from videoprism_mlx.library import table

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))
)

# Pages whose snippets take seconds, and are not what a newcomer tries first.
LONG = {f"docs/{name}.md" for name in ("demo", "evaluation", "features", "precision", "search")}
LONG.add("docs/training.md")

# Commands that a test cannot run, each with the reason. Whatever is not here runs.
NOT_RUN = {
    "pip install": "it needs the package registry; test_wheel.py installs the package",
    "python -m pip install": "it needs the package registry",
    "python -m pre_commit": "it changes the repository",
    "git ": "it publishes",
    "make ": "it runs this test, or sets up an environment",
    "python -m pytest": "it runs this test",
    "python -m benchmarks.": "it takes minutes; test_benchmarks.py runs its parts",
    "videoprism-mlx check --speed": "it takes minutes; test_speed.py runs it in small",
    "videoprism-mlx check --tune": "it tunes this machine; test_speed.py runs it in small",
    "videoprism-mlx serve": "it serves until it is stopped; test_serve.py runs it",
    "videoprism-mlx demo --serve": "it does so too; test_search.py of the demo runs it",
    "python examples/train_demo_model.py": "it takes an hour; test_examples.py runs it in small",
    "dask ": "it serves until it is stopped; benchmarks/machines runs it",
    "rsync ": "it needs other machines",
    "python -c": "it draws a checkpoint at full size, for the two below",
    "python tests/reference/": "it needs the official package; what it saved is in the repository",
    "/usr/bin/time": "it measures a conversion at full size",
}
# What makes a command smaller, which its own options leave at a size that takes long.
SMALLER = {
    "demo": ["--clips", "13"],
    "evaluate probe": ["--sizes", "2", "all", "--epochs", "2"],
}


class Block(NamedTuple):
    """A fenced block: its language, its lines, and the line of the page before them."""

    language: str
    text: str
    line: int


def blocks_of(page: str) -> list[Block]:
    """The fenced blocks of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    fenced = re.finditer(r"^( *)```(.*)\n((?s:.*?))^\1```$", text, re.MULTILINE)
    blocks = [
        Block(found[2].strip(), textwrap.dedent(found[3]), text[: found.start()].count("\n") + 1)
        for found in fenced
    ]
    assert text.count("```") == 2 * len(blocks), f"{page} has a fence without its end"
    return blocks


def commands_of(block: Block) -> list[list[str]]:
    """The commands of a shell block, each as words."""
    text = block.text.replace("\\\n", "")
    # A quoted argument may go over several lines.
    lines, waiting = [], ""
    for line in text.splitlines():
        waiting += line
        if waiting.count("'") % 2 == 0:
            lines.append(waiting)
            waiting = ""
        else:
            waiting += "\n"
    assert not waiting, f"a quotation has no end: {waiting}"
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def reason_not_to_run(words: list[str]) -> str | None:
    """Why a command is not run; None if it is."""
    command = shlex.join(words).replace("'", "")
    while "=" in command.partition(" ")[0]:  # A variable for the command.
        command = command.partition(" ")[2]
    command = command.removeprefix(".venv/bin/")
    return next((why for start, why in NOT_RUN.items() if f"{command} ".startswith(start)), None)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that snippets name, and one for what is downloaded."""
    root = tmp_path_factory.mktemp("snippets")
    work = root / "work"
    work.mkdir()
    with pytest.MonkeyPatch.context() as monkeypatch:
        standins.shrink_models(monkeypatch, root)
        tokenizer = root / "cache" / "tokenizers" / "c4_en.model"
        standins.write_tokenizer(tokenizer, tmp_path_factory.mktemp("tokenizer"))
        standins.write_videos(work)
        standins.write_lists(work)
        standins.write_checkpoints(work)
        standins.save_classifier(root)
    for name in ("examples", "tests"):
        (work / name).symlink_to(ROOT / name)
    return root


@pytest.fixture
def reader(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a reader of one page tries its snippets."""
    folder = tmp_path / "work"
    shutil.copytree(prepared / "work", folder, symlinks=True)
    standins.shrink_models(monkeypatch, prepared)
    standins.replace_mteb(monkeypatch)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(table, "data_directory", lambda: tmp_path / "data")
    monkeypatch.setattr(sys, "argv", ["python"])
    return folder


@pytest.fixture
def scheduler() -> Iterator[Callable[[str], str]]:
    """A scheduler in the place of the one that a page names."""
    with standins.scheduler() as replaced:
        yield replaced


def run_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a command as the shell would, in this process, and expects it to succeed."""
    if words[0] == "mlx.launch":  # As one process; test_ranks_of_commands.py starts several.
        words = words[words.index("--") + 1 :]
    program, *arguments = words
    program = Path(program).name
    if program == "python" and arguments[0] == "-m":
        assert arguments[1] == "videoprism_mlx.convert", f"what is this command? {words}"
        program, arguments = "videoprism-mlx", ["convert", *arguments[2:]]
    if program == "videoprism-mlx":
        smaller = SMALLER.get(arguments[0], SMALLER.get(" ".join(arguments[:2]), []))
        try:
            code = cli.main([*arguments, *smaller])
        except SystemExit as stopped:  # argparse does so after --help, and for wrong options.
            code = stopped.code
        assert code == 0, f"{shlex.join(words)} ended with exit code {code}"
        return
    assert program == "python", f"what is this command? {words}"
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_path(arguments[0], run_name="__main__")


def run_python(block: Block, page: str, names: dict[str, Any]) -> None:
    """Runs a block with the names that earlier blocks of the page defined."""
    code = compile("\n" * block.line + block.text, ROOT / page, "exec")
    exec(code, names)


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow) if page in LONG else page for page in PAGES],
)
def test_snippets_run(
    page: str,
    reader: Path,
    prepared: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if page == "docs/evaluation.md":  # The page before it trains one.
        shutil.copytree(prepared / "my-classifier", reader / "my-classifier")
    if page == "docs/precision.md":
        standins.publish_figures(monkeypatch, reader / "clip.mp4")
    names: dict[str, Any] = {"__name__": "__main__"}
    blocks = blocks_of(page)
    if any(standins.ADDRESS in block.text for block in blocks):
        replaced = request.getfixturevalue("scheduler")
        blocks = [block._replace(text=replaced(block.text)) for block in blocks]
    for block in blocks:
        if block.language == "python":
            run_python(block, page, names)
        elif block.language == "bash":
            for words in commands_of(block):
                if reason_not_to_run(words) is None:
                    run_command(words, monkeypatch)
        elif block.language == "json":
            json.loads(block.text)
        else:
            assert block.language == "text", f"{page}:{block.line} is in {block.language!r}"


def test_reasons_are_needed() -> None:
    """Each reason not to run something is about something that a page has."""
    blocks = [block for page in PAGES for block in blocks_of(page)]
    given = {
        reason_not_to_run(words)
        for block in blocks
        if block.language == "bash"
        for words in commands_of(block)
    }
    assert set(NOT_RUN.values()) <= given


def test_benchmarks_in_the_docs_exist() -> None:
    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r"python -m (benchmarks[\w.]*\w)", text))
    assert named
    paths = {name: ROOT / f"{name.replace('.', '/')}.py" for name in named}
    packages = {name: path.with_suffix("") / "__main__.py" for name, path in paths.items()}
    missing = {name for name, path in paths.items() if not path.is_file()}
    assert {name for name in missing if not packages[name].is_file()} == set()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_links_of_the_readme_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = {link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)}
    missing = {link for link in linked if "://" not in link and not (ROOT / link).exists()}
    assert missing == set()


def test_every_public_name_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^::: vp\.(\w+)$", text, re.MULTILINE))
    assert named == set(vp.__all__) - {"convert", "mteb"}
    for room in (convert, mteb, pictures):
        inner = room.__name__.rpartition(".")[2]
        named = set(re.findall(rf"^::: vp\.{inner}\.(\w+)$", text, re.MULTILINE))
        assert named == set(room.__all__)


def test_the_map_of_the_house_is_complete() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+/|\w+\.py)`", text.partition("Around the package")[0]))
    package = ROOT / "videoprism_mlx"
    rooms = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    modules = {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    assert named - {".importlinter"} == rooms | modules | {"convert/"}


def test_files_in_the_docs_exist() -> None:
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for path in re.findall(
            r"`((?:tests|examples|benchmarks|convert|videoprism_mlx)/[\w/.]+)`", text
        ):
            assert os.path.exists(ROOT / path), f"{page} names {path}"
