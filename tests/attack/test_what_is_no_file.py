"""Pipes, devices, folders and files that claim to be huge: an error at once, in little memory."""

import json
import os
import resource
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import media
import numpy as np
import pytest
from conftest import REFERENCE, reference_config
from PIL import Image

import videoprism_mlx as vp
from videoprism_mlx.cli.shared import read_lines
from videoprism_mlx.convert.verify import read_activations
from videoprism_mlx.datasets.captions import read_captions
from videoprism_mlx.datasets.labels import read_names
from videoprism_mlx.errors import EXPECTED, CheckpointError, InputError, VideoError
from videoprism_mlx.features.formats import read_features, read_record
from videoprism_mlx.features.resumable_store import FeatureStore
from videoprism_mlx.files.atomic import new_file
from videoprism_mlx.files.npy import map_array
from videoprism_mlx.files.npz import NpzFile
from videoprism_mlx.tokenizers import SentencePieceTokenizer
from videoprism_mlx.training.state import RunFiles
from videoprism_mlx.weights.outline import parameter_shapes

READERS: dict[str, Callable[[Path], object]] = {
    "checkpoint.npz": lambda path: vp.convert.flax_to_mlx(path, path.parent / "m", "text"),
    "activations.npz": read_activations,
    "features.npz": lambda path: (read_record(path), read_features(path)),
    "features.safetensors": read_record,
    "features.jsonl": read_record,
    "features.parquet": read_record,
    "output.npz": lambda path: FeatureStore(path, {}).opened().__enter__(),
    "array.npy": lambda path: map_array(path, InputError, "remove it"),
    "config.json": lambda path: vp.load_model(path.parent),
    "record.json": lambda path: FeatureStore(path.parent, {}).opened().__enter__(),
    "last.safetensors": lambda path: RunFiles(path.parent).restore({}, {}, {}),
    "list.csv": read_captions,
    "list.json": read_captions,
    "names.txt": read_names,
    "texts.txt": read_lines,
    "sentencepiece.model": SentencePieceTokenizer,
    "image.png": lambda path: vp.read_video([path, path]),
}


@pytest.mark.parametrize("what", ["pipe", "device", "folder"])
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file(name: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(EXPECTED) as caught:
        READERS[name](path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500 and str(tmp_path) in message


def npz(path: Path, header: bytes, data: bytes, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """An archive of one array, with this header."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("params/x.npy", header + data)
    return path


def header(shape: object, descr: str = "<f4") -> bytes:
    content = BytesIO()
    described = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(content, described)
    return content.getvalue()


def peak_of(path: Path) -> int:
    """How many bytes reading an archive takes at most, in a process of its own."""
    script = (
        "import resource, sys; from videoprism_mlx.convert.verify import read_activations\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_activations(sys.argv[1])\n"
        "except ValueError as error: print(error, file=sys.stderr)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True)
    assert "is damaged" in done.stderr
    return int(done.stdout) * (1 if sys.platform == "darwin" else 1024)


def test_an_archive_that_claims_much_more_than_it_has(tmp_path: Path) -> None:
    """Half a gigabyte of zeros in half a megabyte."""
    count = 2**27
    path = tmp_path / "x.npz"
    compressed = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with compressed as archive, archive.open("x.npy", "w", force_zip64=True) as member:
        member.write(header((count,)))
        for _ in range(4 * count // 2**20):
            member.write(bytes(2**20))
    assert path.stat().st_size < 2**22
    assert peak_of(path) < 50e6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header((2,), "<f2") + bytes(8), "has 8 bytes of data, too many"),
        (header((2**30, 2**30)) + bytes(8), "is too large"),
        (header((2,)) + bytes(4), "has 4 bytes of data, too few"),
        (b"\x93NUMPY\x02\0" + struct.pack("<I", 2**31) + bytes(99), "2,147,483,648 bytes long"),
        (header((2,)).replace(b"<f4", b"[f4") + bytes(8), "its type is"),
        (header((2,)).replace(b"(2,)", b"(((("), "its header is"),
        (header((2,)).replace(b"(2,)", b"(-2)"), "its header is"),
        (header((2,)).replace(b"'shape'", b"'shap\0'") + bytes(8), "its header is"),
        (b"\x93NUMPY\x09\0" + bytes(90), "no array of NumPy"),
        (b"\x93NUMPY\x01\0" + struct.pack("<H", 9000) + b"(" * 9000, "its header is"),
        (b"\x93NUMPY\x01\0\x10\0", "cut short"),
    ],
)
def test_headers(content: bytes, message: str, tmp_path: Path) -> None:
    path = npz(tmp_path / "x.npz", content, b"")
    with pytest.raises(CheckpointError, match=message) as caught:
        vp.convert.flax_to_mlx(path, tmp_path / "m", "videoprism_v1_base")
    assert len(str(caught.value)) < 500 and "x.npz" in str(caught.value)


def test_an_archive_of_another_kind(tmp_path: Path) -> None:
    for method in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        path = npz(tmp_path / "x.npz", header((2,)), bytes(8), method)
        with pytest.raises(CheckpointError, match="compressed in a way that NumPy does not use"):
            read_activations(path)
    path = npz(tmp_path / "x.npz", header((2,)), bytes(8), zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="it is encrypted"):
        read_activations(path)


def test_all_the_headers_that_numpy_writes(tmp_path: Path) -> None:
    shapes = [(), (1,), (0, 3), (2, 3, 4)]
    types = ["f2", "f4", "f8", "i1", "i8", "u2", "b1", "U7", "V2", ">f4"]
    arrays = {f"{t} {s}": np.ones(s, "f4").astype(t) if t[0] != "V" else np.zeros(s, "V2")
              for t in types for s in shapes}  # fmt: skip
    arrays["columns first"] = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **arrays)
        with NpzFile(tmp_path / "x.npz", InputError, "remove it") as opened:
            found = {name: opened.read(name) for name in opened.headers}
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype and found[name].shape == array.shape
            assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize(
    "change",
    [
        {"num_spatial_layers": 2**31 - 1},
        {"num_temporal_layers": 1001},
        {"patch_size": 10**9},
        {"model_dim": 2**30},
        {"pos_emb_shape": [1, 2**30, 1]},
        {"atten_logit_cap": int("9" * 400)},
        {"atten_logit_cap": 1e300},
        {"model_dim": 60_000, "mlp_dim": 200_000, "num_spatial_layers": 1000, "num_heads": 1},
        {"model": "FactorizedVideoClassifier"},
        {"norm_policy": "x" * 10_000},
        {"x" * 10_000: 1},
    ],
)
def test_configurations_that_would_fill_the_memory(change: dict, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (tmp_path / "config.json").write_text(json.dumps(reference_config("encoder") | change))
    with pytest.raises(CheckpointError, match=r"config\.json") as caught:
        vp.load_model(tmp_path)
    assert len(str(caught.value)) < 500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100e3


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 200 + "]" * 200])
def test_json_that_is_nested_deeply(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json is not JSON .*nested"):
        vp.load_model(tmp_path)


def test_sizes_of_models_are_estimated() -> None:
    for name in ("videoprism_lvt_v1_base", "videoprism_vc_v1_large", "videoprism_v1_giant"):
        config = vp.models.get_config(name)
        settings = {key: value for key, value in config.items() if key != "model"}
        shapes = parameter_shapes(vp.models.build(config)).values()
        exact = sum(int(np.prod(shape)) for shape in shapes)
        estimate = vp.models.parameter_estimate(config["model"], settings)
        assert 0.99 < estimate / exact < 1.01, name


def tiff(pages: int, reduced: bool) -> bytes:
    """A TIFF file of pages of one pixel."""
    parts = [b"II*\0" + struct.pack("<I", 8)]
    for page in range(pages):
        tags = {254: int(reduced and page > 0), 256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 0,
                277: 1, 278: 1, 279: 1}  # fmt: skip
        size = 2 + 12 * len(tags) + 4
        body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
        following = 8 + (page + 1) * size if page < pages - 1 else 0
        parts.append(struct.pack("<H", len(tags)) + body + struct.pack("<I", following))
    return b"".join(parts)


@pytest.mark.parametrize("reduced", [False, True])
def test_a_picture_of_many_pages(reduced: bool, tmp_path: Path) -> None:
    (tmp_path / "pages.tif").write_bytes(tiff(32_000, reduced))
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(VideoError, match="holds 1000 or more images; expected one") as caught:
        vp.read_video(tmp_path / "pages.tif")
    assert "pages.tif" in str(caught.value) and len(str(caught.value)) < 500
    assert time.process_time() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100e3


@pytest.mark.slow
def test_a_picture_that_claims_a_billion_pixels(tmp_path: Path) -> None:
    Image.new("1", (40_000, 25_000)).save(tmp_path / "huge.png")
    with pytest.raises(VideoError, match=r"huge.png says that it has more than 134,217,728 pixels"):
        vp.read_video(tmp_path / "huge.png")


def test_an_output_that_is_a_device(tmp_path: Path) -> None:
    for target in (tmp_path / "pipe", tmp_path / "folder"):
        os.mkfifo(target) if target.name == "pipe" else target.mkdir()
        with pytest.raises(EXPECTED, match=target.name), new_file(target, replace=True):
            raise AssertionError("it was opened")


def test_a_part_of_a_file_that_would_begin_far_beyond_its_end(tmp_path: Path) -> None:
    content = bytearray(media.write(tmp_path / "clip.mkv", 3).read_bytes())
    place = content.index(bytes.fromhex("114d9b74")) + 4  # The first element of the segment.
    content[place : place + 1] = bytes.fromhex("01fffffffffffff0")
    (tmp_path / "clip.mkv").write_bytes(content)
    try:
        assert len(vp.read_video(tmp_path / "clip.mkv", None, size=18)) == 3
    except VideoError as error:
        assert "clip.mkv" in str(error)


def test_too_long_a_piece_in_a_tokenizer(tmp_path: Path) -> None:
    """Up to release 0.2.1 of sentencepiece, this ended the process."""

    def field(number: int, content: bytes) -> bytes:
        length, digits = len(content), b""
        while length > 127:
            digits, length = digits + bytes([length & 127 | 128]), length >> 7
        return bytes([number << 3 | 2]) + digits + bytes([length]) + content

    pieces = (b"<unk>", b"a" * 200_000)
    model = b"".join(
        field(1, field(1, piece) + b"\x15\0\0\0\0\x18" + bytes([2 if piece == pieces[0] else 1]))
        for piece in pieces
    )
    (tmp_path / "t.model").write_bytes(model)
    script = (
        "import sys; from videoprism_mlx.tokenizers import SentencePieceTokenizer\n"
        "try: SentencePieceTokenizer(sys.argv[1])\n"
        "except ValueError as error: print(error)"
    )
    command = [sys.executable, "-c", script, tmp_path / "t.model"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "t.model is not a SentencePiece model" in done.stdout, done.returncode


def test_the_reference_checkpoints_are_read_as_numpy_reads_them() -> None:
    for path in sorted(REFERENCE.glob("*/plain.npz"))[:6]:
        with np.load(path) as saved:
            expected = dict(saved)
        found = read_activations(path)
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, strict=True)
