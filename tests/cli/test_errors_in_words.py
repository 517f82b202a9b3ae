"""Errors of the system are printed in words, with the path, and without their numbers."""

import errno
import os
import pickle
import socket
from pathlib import Path

import media
import pytest
from commands import run

from videoprism_mlx.cli.evaluate import retrieval_table
from videoprism_mlx.errors import (
    REASONS,
    AlreadyExistsError,
    DownloadError,
    NotFoundError,
    VideoError,
    are,
    counted,
    in_words,
)
from videoprism_mlx.files.download import explained

TINY = "videoprism_lvt_demo_tiny"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(2, "No such file or directory", "a.mp4"), "a.mp4: there is no such "),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), b"out"), "out: the disk is full"),
        (OSError(errno.EXDEV, os.strerror(errno.EXDEV), "a", None, "b"), "a to b: invalid cross-"),
        (OSError(errno.ENOSPC, "the disk is full; 3 MB are free"), "the disk is full; 3 MB are"),
        (OSError(errno.EIO, os.strerror(errno.EIO), 7), "7: the disk failed to read"),
        (OSError("without a number"), "without a number"),
        (VideoError("a.mp4 is empty"), "a.mp4 is empty"),
    ],
)
def test_an_error_in_words(error: Exception, words: str) -> None:
    assert in_words(error).startswith(words)


@pytest.mark.parametrize("number", REASONS)
def test_no_reason_is_a_number_or_a_sentence(number: int) -> None:
    said = in_words(OSError(number, os.strerror(number), "clip.mp4"))
    assert said == f"clip.mp4: {REASONS[number]}"
    assert "Errno" not in said and not said.endswith(".")


@pytest.mark.parametrize("kind", [AlreadyExistsError, NotFoundError])
def test_own_errors_are_in_words_in_python_too(kind: type[OSError]) -> None:
    error = kind(errno.EEXIST, "already exists; name another output", "out")
    assert str(error) == "out: already exists; name another output"
    assert (error.errno, error.filename) == (errno.EEXIST, "out")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_commands_print_no_numbers_of_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, gone, there = media.clip("b.mp4"), tmp_path / "gone.mp4", tmp_path / "there"
    there.mkdir()
    (there / "notes.txt").touch()
    absent = f"{gone}: there is no such file or folder"
    exists = f"{there}: already exists; name another output or replace it with --overwrite"
    for arguments, message in (
        (("show", gone, "-o", tmp_path / "x.png"), absent),
        (("timeline", gone, "--text", "a ball"), absent),
        (("similarity", clip, "--text-file", gone), absent),
        (("evaluate", "retrieval", "--data", gone), absent),
        (("embed", "--text", gone, "-o", tmp_path / "x.npz"), absent),
        (("convert", clip, "-o", there), exists),
        (("classify", gone, "--labels", "a ball", "--model", TINY), absent),
    ):
        assert run(*arguments) == 2
        printed = capsys.readouterr().err
        assert message in printed and "Errno" not in printed
        assert len(printed.splitlines()) == 1


def test_a_number_and_its_noun() -> None:
    assert [counted(n, "video") for n in (0, 1, 2000)] == ["0 videos", "1 video", "2,000 videos"]
    assert [counted(n, "class", "classes") for n in (1, 3)] == ["1 class", "3 classes"]


def test_the_verb_after_a_number() -> None:
    assert [are(1), are(2), are(1, 3), are(0, 1), are(2, 3)] == ["is", "are", "is", "is", "are"]


def test_one_video_and_one_text() -> None:
    names = [f"recall@{n}" for n in (1, 5, 10)] + ["median_rank", "mean_rank"]
    metrics = {f"{way}/{n}": 1.0 for way in ("text_to_video", "video_to_text") for n in names}
    result = {"metrics": metrics, "measured": 1, "texts": 1, "texts_cut": 0}
    assert retrieval_table(result)[-1] == "1 video, 1 text"
    assert retrieval_table({**result, "texts": 2})[-1] == "1 video, 2 texts"


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (socket.gaierror(-2, "Name or service not known"), "the server was not found; do this"),
        (OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)), "connection refused; do"),
    ],
)
def test_a_failed_download_in_words(cause: OSError, said: str) -> None:
    for wrapped in (False, True):
        with pytest.raises(DownloadError) as failed, explained("a file", "do this"):
            try:
                raise cause
            except OSError as error:
                if wrapped:  # As libraries for the web do it.
                    raise RuntimeError(str(error)) from error
                raise
        assert str(failed.value).lower().startswith(f"could not fetch a file: {said}")
