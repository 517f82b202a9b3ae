"""Where workers find files: mapped folders, and errors that say what to do."""

import platform
from pathlib import Path

import pytest

from videoprism_mlx.cli.program.machines import machines
from videoprism_mlx.errors import InputError, InputTypeError, WorkerError
from videoprism_mlx.workers.places import Places, parse_mapping


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/Volumes/nas/clips/a.mp4", ["/mnt/nas/clips/a.mp4"]),
        ("/Volumes/nas", ["/mnt/nas"]),
        ("/Volumes/nas2/a.mp4", []),  # Only whole names of folders count.
        ("/Volumes/nas/raw/a.mp4", ["/raw/a.mp4"]),  # The longest folder counts.
        ("/Volumes/nas/rawer/a.mp4", ["/mnt/nas/rawer/a.mp4"]),
        ("/data/x y/a.mp4", ["/one/x y/a.mp4", "/two/x y/a.mp4"]),
        ("/Volumes/nas/../nas/a.mp4", ["/mnt/nas/a.mp4"]),
    ],
)
def test_the_longest_folder_that_is_mapped_is_replaced(path: str, expected: list[str]) -> None:
    places = Places.of(
        {
            "/Volumes/nas": "/mnt/nas",
            "/Volumes/nas/raw/": "/raw",
            "/data": ["/one/", "/two"],
        }
    )
    own = str(Path(path).resolve()) if ".." in path else path
    assert places.candidates(path) == [*expected, own]


def test_the_root_can_be_mapped() -> None:
    assert Places.of({"/": "/host"}).candidates("/a/b") == ["/host/a/b", "/a/b"]


def test_the_first_place_with_the_same_file_is_taken(tmp_path: Path) -> None:
    for name, text in (("one", "other"), ("two", "same"), ("three", "same")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.mp4").write_text(text)
    names = ("none", "one", "two", "three")
    places = Places.of({"/nas": [str(tmp_path / name) for name in names]})
    assert places.find("/nas/a.mp4", 4) == tmp_path / "two" / "a.mp4"
    assert places.find("/nas/a.mp4") == tmp_path / "one" / "a.mp4"
    assert places.find(tmp_path / "three" / "a.mp4", 4) == tmp_path / "three" / "a.mp4"


def test_a_folder_of_images_has_the_size_of_its_images(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "1.png").write_bytes(b"12345")
    (folder / "2.png").write_bytes(b"123")
    (folder / "notes.txt").write_text("not an image")
    assert Places.of({"/nas": str(tmp_path)}).find("/nas/frames", 8) == folder


def test_a_file_that_is_missing_or_another_one_is_an_error_of_the_worker(tmp_path: Path) -> None:
    places = Places.of({"/nas": str(tmp_path)})
    with pytest.raises(WorkerError) as caught:
        places.find("/nas/a.mp4", 4)
    assert str(caught.value) == (
        f"there is no /nas/a.mp4 on {platform.node()} (nor {tmp_path}/a.mp4); mount that folder, "
        "say with --map where it is (--map /Volumes/nas=/mnt/nas), or send the files (--send)"
    )
    (tmp_path / "a.mp4").write_text("other")
    with pytest.raises(WorkerError, match=r"a\.mp4 has 5 bytes on .*, and /nas/a\.mp4 has 4 where"):
        places.find("/nas/a.mp4", 4)
    assert not isinstance(caught.value, InputError)  # As errors of videos are.


def test_mappings_of_the_command_line_are_added_up() -> None:
    assert parse_mapping(["/a=/b", "/c=/d", "/a=/e=f"]) == {"/a": ["/b", "/e=f"], "/c": ["/d"]}
    for text in ("/a", "=/b", "/a=", ""):
        with pytest.raises(InputError, match="expected FROM=TO, such as /Volumes/nas=/mnt/nas"):
            parse_mapping([text])


def test_a_mapping_that_cannot_be_meant_is_refused() -> None:
    with pytest.raises(InputError, match="is mapped to 'mnt'; expected an absolute path"):
        Places.of({"/nas": "mnt"})
    with pytest.raises(InputTypeError, match="mapping is '/a=/b'; expected a dictionary"):
        Places.of("/a=/b")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the mapping has an empty path"):
        Places.of({"": "/mnt"})


def options(**given: object) -> object:
    import argparse

    return argparse.Namespace(
        **{"scheduler": None, "workers": None, "mapping": None, "send": False} | given
    )


def test_options_that_do_not_go_together_are_refused() -> None:
    none = {"client": None, "mapping": None, "send_files": False}
    assert machines(options()) == none  # type: ignore[arg-type]
    given = options(scheduler="tcp://mac1:8786", mapping=["/a=/b"])
    expected = {"client": "tcp://mac1:8786", "mapping": {"/a": ["/b"]}, "send_files": False}
    assert machines(given) == expected  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--workers are processes on this machine"):
        machines(options(scheduler="tcp://mac1:8786", workers=2))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"--map is for workers; give --scheduler"):
        machines(options(mapping=["/a=/b"]))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"--send is for workers; give --scheduler"):
        machines(options(send=True))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="is mapped to 'b'"):
        machines(options(workers=2, mapping=["/a=b"]))  # type: ignore[arg-type]
