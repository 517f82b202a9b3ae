"""The demo: what it finds, its command, and the folder that it writes."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from markupsafe import escape
from small_demo import COUNT, MEANT, Page, small_demo

import videoprism_mlx as vp
from videoprism_mlx.cli import main
from videoprism_mlx.cli.library import serve
from videoprism_mlx.demo import search as demo
from videoprism_mlx.demo.queries import PLACED, QUERIES
from videoprism_mlx.demo.results import Clip, Demo, Ranking, Turn
from videoprism_mlx.demo.search import run_demo
from videoprism_mlx.library.library import Library


@pytest.fixture(scope="module")
def shown() -> Demo:
    return small_demo()


def test_cosines_are_those_of_the_model_itself(shown: Demo) -> None:
    model, processor = vp.load(vp.models.DEMO_MODEL, dtype="float32")
    paths = [clip.path for clip in shown.clips]
    texts = [query.text for query in QUERIES]
    videos, words, _ = model(**processor(videos=paths, texts=texts))
    expected = np.array(words) @ np.array(videos).T
    for ranking, row in zip(shown.rankings, expected, strict=True):
        found = {hit.clip.path: hit.cosine for hit in ranking.hits}
        np.testing.assert_allclose([found[path] for path in paths], row, atol=1e-5)
        cosines = [hit.cosine for hit in ranking.hits]
        assert cosines == sorted(cosines, reverse=True)
        for hit in ranking.hits:
            assert hit.is_right == MEANT[ranking.query.text](hit.clip.scene)

    for turn in shown.turns:
        both, words, _ = model(
            **processor(
                videos=[turn.clip.path, turn.backwards.path], texts=[turn.text, turn.opposite]
            )
        )
        np.testing.assert_allclose(turn.cosines, np.array(both) @ np.array(words).T, atol=1e-5)


def test_the_library_of_the_clips_finds_what_memory_finds(shown: Demo) -> None:
    texts = [ranking.query.text for ranking in shown.rankings]
    cosines = demo.in_memory(demo.Searcher(), texts, shown.clips, {})
    for ranking, row in zip(shown.rankings, cosines, strict=True):
        found = {hit.clip.path: hit.cosine for hit in ranking.hits}
        np.testing.assert_allclose([found[clip.path] for clip in shown.clips], row, atol=1e-5)
    [best] = Library(shown.output / demo.LIBRARY).search(texts[0], k=1)
    assert Path(best.path) == shown.rankings[0].hits[0].clip.path.resolve()


def test_serve_opens_the_page_of_the_library(
    shown: Demo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(demo, "run_demo", lambda *_: shown)
    served: list[object] = []
    monkeypatch.setattr(serve, "serve_page", lambda *given, **named: served.append((given, named)))
    assert main(["demo", "-o", str(tmp_path / "out"), "--serve"]) == 0
    assert served == [((str(shown.output / "library"),), {"is_opened": True})]


def test_clips_played_backwards_have_their_frames_in_reverse(shown: Demo) -> None:
    said = [(turn.text, turn.opposite) for turn in shown.turns]
    assert said == [
        ("a pink square moves left", "a pink square moves right"),
        ("a blue star moves up", "a blue star moves down"),
        ("a yellow heart grows", "a yellow heart shrinks"),
    ]
    for turn in shown.turns:
        forwards, backwards = (clip.frames().astype(int) for clip in (turn.clip, turn.backwards))
        assert np.abs(forwards[::-1] - backwards).mean() < 2 < np.abs(forwards - backwards).mean()


@pytest.mark.parametrize(
    ("cosines", "turns"),
    [
        ([[0.5, 0.2], [0.1, 0.4]], True),
        ([[0.5, 0.2], [0.4, 0.1]], False),
        ([[0.2, 0.5], [0.1, 0.4]], False),
        ([[0.3, 0.3], [0.1, 0.4]], False),
    ],
)
def test_an_answer_turns_if_both_directions_are_right(
    cosines: list[list[float]], turns: bool
) -> None:
    clip = Clip(Path("a.mp4"), PLACED[0])
    assert Turn(clip, clip, "left", "right", np.array(cosines)).turns is turns


def test_how_often_the_first_is_right(shown: Demo) -> None:
    right = [[hit.is_right for hit in ranking.hits] for ranking in shown.rankings]
    assert shown.first_right == sum(row[0] for row in right)
    assert shown.by_chance == pytest.approx(sum(map(sum, right)) / COUNT)
    ranking = Ranking(QUERIES[0], shown.rankings[0].hits)
    assert [hit.is_right for hit in ranking.hits] == [
        place in ranking.right for place in range(1, COUNT + 1)
    ]


# Own queries, the command line.


def test_own_queries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["<script>alert('x')</script> & \"stars\"", "ein roter Kreis"]
    arguments = [f"--query={text}" for text in asked]
    output = tmp_path / "demo"
    command = ["demo", "-o", str(output), f"--clips={len(PLACED)}", "--seed=3", "--json"]
    assert main([*command, *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    text = (output / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.text["h3"] == asked and not page.all("script") and str(escape(asked[0])) in text
    assert "✓ marks" not in text and not re.search(r"class=.true", text)
    assert [query["text"] for query in result["queries"]] == asked
    for query in result["queries"]:
        assert len(query["results"]) == len(PLACED)
        assert {each["right"] for each in query["results"]} == {None}
    shows = {each["video"]: each["shows"] for each in result["clips"]}
    expected = [shows[each["video"]] for q in result["queries"] for each in q["results"][:4]]
    captions = page.text["figcaption"][:8]
    assert all(said.endswith(each) for said, each in zip(captions, expected, strict=True))
    assert result["page"] == str(output / "index.html") and set(result["seconds"]) == {
        "draw",
        "encode",
        "search",
    }
    assert [each["turns"] for each in result["backwards"]] == [
        row[0][0] > row[0][1] and row[1][1] > row[1][0]
        for row in (each["cosines"] for each in result["backwards"])
    ]


def test_the_table(
    shown: Demo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "run_demo", lambda *_: shown)
    assert main(["demo"]) == 0
    printed = capsys.readouterr().out
    for ranking in shown.rankings:
        _, _, after = printed.partition(f"\n{ranking.query.text}\n")
        lines = after.splitlines()[:4]
        for place, (line, hit) in enumerate(zip(lines, ranking.hits, strict=False), 1):
            right = "yes" if hit.is_right else "no"
            words = [str(place), f"{hit.cosine:.3f}", right, hit.clip.path.name]
            assert line.split() == [*words, *hit.clip.shows.split()]
    assert f"for {shown.first_right} of 8 queries" in printed
    assert printed.splitlines()[-1].split() == ["page", str(shown.page)]
    serve = f"videoprism-mlx serve --open --library {shown.output / 'library'}"
    assert printed.splitlines()[-2].split(maxsplit=2) == ["search", "it", serve]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clips", "3"], f"the number of clips is 3; expected {len(PLACED)} or more"),
        (["--seed", "-1"], "the seed is -1; expected 0 or more"),
        (["--query", "a star", "--query", " "], "one of the queries is empty"),
    ],
)
def test_mistakes(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "-o", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


# The folder.


@pytest.mark.slow
def test_a_rerun_replaces_what_was_there(tmp_path: Path) -> None:
    output = tmp_path / "demo"
    first = run_demo(output, ["a star"], count=COUNT, seed=1)
    before = first.page.read_text(encoding="utf-8")
    files = {path.name: path.read_bytes() for path in (output / "clips").iterdir()}
    (output / "notes.txt").write_text("mine")
    (output / "clips" / ".DS_Store").touch()
    again = run_demo(output, ["a heart"], count=len(PLACED), seed=1)
    assert len(files) == COUNT
    assert len(list((output / "clips").iterdir())) == len(list(again.clips)) == len(PLACED)
    assert "a heart" in again.page.read_text(encoding="utf-8") != before
    assert (output / "notes.txt").read_text() == "mine"
    assert {path.name for path in output.iterdir() if not path.name.startswith(".")} == {
        "index.html",
        "demo.png",
        "clips",
        "backwards",
        "library",
        "notes.txt",
        "videoprism-demo.json",
    }
    same = run_demo(output, ["a star"], count=COUNT, seed=1)
    assert {path.name: path.read_bytes() for path in (output / "clips").iterdir()} == files
    assert [hit.cosine for hit in same.rankings[0].hits] == [
        hit.cosine for hit in first.rankings[0].hits
    ]


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("my page")
    with pytest.raises(ValueError, match=r"holds something other than a demo, such as index\.html"):
        run_demo(site)
    assert [path.name for path in site.iterdir()] == ["index.html"]
    assert (site / "index.html").read_text() == "my page"
    with pytest.raises(ValueError, match="is a file; expected a new folder"):
        run_demo(site / "index.html")


def test_a_users_own_clip_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / demo.RECORD).write_text("{}")
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "holiday.mp4").write_text("mine")
    with pytest.raises(ValueError, match=r"holiday\.mp4 does not belong to the demo"):
        run_demo(tmp_path)
    assert (tmp_path / "clips" / "holiday.mp4").read_text() == "mine"


@pytest.mark.slow
def test_a_killed_run_leaves_no_page_and_the_next_one_works(tmp_path: Path) -> None:
    output = tmp_path / "demo"
    output.mkdir()
    (output / demo.RECORD).write_text("{}")
    (output / "index.html").write_text("of an earlier run, whose clips are gone by then")
    code = (
        "import os, signal, sys; from videoprism_mlx.demo import page, search\n"
        "page.page = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"search.run_demo(sys.argv[1], ['a star'], count={len(PLACED)})"
    )
    killed = subprocess.run([sys.executable, "-c", code, output], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (output / "index.html").exists() and (output / "clips").exists()
    again = run_demo(output, ["a star"], count=len(PLACED))
    assert again.page.exists()
    assert not [path for path in output.iterdir() if "partial" in path.name]
