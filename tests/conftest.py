"""What the tests share: the small reference models, converted once."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import videoprism_mlx as vp
from videoprism_mlx import models
from videoprism_mlx.runtime import blas

# Without OpenBLAS, the import above has said so. Processes that tests start need not say it again.
if blas.loaded() is None:
    os.environ[blas.VARIABLE] = "0"

# The user's own cache changes nothing in a test: it may hold a block size tuned for this machine.
CACHE = tempfile.TemporaryDirectory(prefix="videoprism_mlx-")
os.environ["VIDEOPRISM_MLX_CACHE"] = CACHE.name

REFERENCE = Path(__file__).parent / "reference"
MODELS = sorted(path.parent.name for path in REFERENCE.glob("*/config.json"))

# The saved activations: model and case.
CASES = [
    (name, path.stem)
    for name in MODELS
    for path in sorted((REFERENCE / name).glob("*.npz"))
    if path.stem not in ("checkpoint", "gradients") and not path.stem.startswith("training_")
]


def reference_config(name: str) -> dict[str, Any]:
    """The configuration of a reference model."""
    return json.loads((REFERENCE / name / "config.json").read_text())


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The converted directory of a reference model, by name."""
    root = tmp_path_factory.mktemp("converted")

    def convert(name: str) -> Path:
        if not (root / name).exists():
            checkpoint = REFERENCE / name / "checkpoint.npz"
            vp.convert.flax_to_mlx(checkpoint, root / name, reference_config(name))
        return root / name

    return convert


@pytest.fixture(scope="session")
def searchable(tmp_path_factory: pytest.TempPathFactory, spm_model: Path) -> Path:
    """The directory of a video-text model with its tokenizer: 4 frames of 18 x 18."""
    output = tmp_path_factory.mktemp("searchable") / "model"
    checkpoint = REFERENCE / "clip_mild" / "checkpoint.npz"
    vp.convert.flax_to_mlx(checkpoint, output, reference_config("clip_mild"), tokenizer=spm_model)
    return output


@pytest.fixture(scope="session")
def spm_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SentencePiece model with the special ids of c4_en: pad 0, end 1, unknown 2."""
    return train_sentencepiece(tmp_path_factory.mktemp("spm"), bos_id=-1)


@pytest.fixture(scope="session")
def spm_model_with_bos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with a begin token."""
    return train_sentencepiece(tmp_path_factory.mktemp("spm_bos"), bos_id=3)


def train_sentencepiece(directory: Path, bos_id: int) -> Path:
    import sentencepiece

    colours, things = ("red", "green", "blue", "grey"), ("cat", "dog", "ball", "car", "kite")
    actions = ("runs", "sleeps", "jumps over the fence", "plays in the garden", "falls down")
    sentences = [f"a {c} {t} {a}." for c in colours for t in things for a in actions]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_prefix=str(directory / "tiny"),
        vocab_size=40,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=bos_id,
        minloglevel=2,
    )
    return directory / "tiny.model"


@pytest.fixture
def released(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[str], list[dict[str, Any]]]:
    """Makes reference models released ones, whose download a stand-in answers.

    Called with a model's name it returns the list of the downloads that are asked for from then on.
    """
    import huggingface_hub

    monkeypatch.setenv("VIDEOPRISM_MLX_CACHE", str(tmp_path / "cache"))
    calls: list[dict[str, Any]] = []
    release = models.Release("google/videoprism-tiny", "flax_tiny.npz")

    def release_it(name: str) -> list[dict[str, Any]]:
        monkeypatch.setitem(models.CONFIGS, "videoprism_tiny", reference_config(name))
        monkeypatch.setitem(models.RELEASES, "videoprism_tiny", release)

        def download(**call: Any) -> str:
            calls.append(call)
            return str(REFERENCE / name / "checkpoint.npz")

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *_, **__: None)
        return calls

    return release_it


@pytest.fixture(scope="session")
def web_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of drawn clips, for the tests of its page."""
    from web_server import make_library

    return make_library(tmp_path_factory.mktemp("web"))


@pytest.fixture(scope="session")
def site(web_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server of its page."""
    from web_server import serving

    with serving(web_library, tmp_path_factory.mktemp("previews")) as running:
        yield running


@pytest.fixture(scope="session")
def hub() -> Iterator[Any]:
    """A stand-in of the Hugging Face Hub."""
    import hub_standin  # Few tests need it.

    with hub_standin.running() as running:
        yield running


@pytest.fixture(scope="session")
def console(hub: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A process that talks to the stand-in."""
    from hub_console import Console

    opened = Console(hub.address, tmp_path_factory.mktemp("console"))
    yield opened
    opened.close()


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A copy of the model that comes with the package."""
    return Path(shutil.copytree(models.SHIPPED[models.DEMO_MODEL], tmp_path / "tiny"))


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A client of Dask with two workers in this process."""
    from distributed import Client, LocalCluster

    options: dict[str, Any] = dict(n_workers=2, threads_per_worker=1, processes=False)
    with (
        LocalCluster(**options, protocol="tcp://", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client
