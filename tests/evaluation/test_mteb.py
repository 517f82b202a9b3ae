"""Models in MTEB: the same numbers as those of `evaluate`, on clips of the drawn world."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from standins import shrink_models

import videoprism_mlx as vp
from videoprism_mlx.demo.scenes import draw_scenes
from videoprism_mlx.demo.world import write_world
from videoprism_mlx.evaluation.protocols import evaluate_retrieval, evaluate_zero_shot
from videoprism_mlx.features.processor import Processor
from videoprism_mlx.files.identity import sha256
from videoprism_mlx.models import DEMO_MODEL, SHIPPED

mteb = pytest.importorskip("mteb")
datasets = pytest.importorskip("datasets")

from mteb.abstasks import (  # noqa: E402
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskRetrieval,
    AbsTaskZeroShotClassification,
)
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402

pytest_plugins = ["evaluation_fixtures"]
pytestmark = pytest.mark.usefixtures("own_cache")

COUNT = 24


def metadata(name: str, type: str, category: str, score: str, modalities: list[str]) -> Any:
    return TaskMetadata(
        name=name, type=type, category=category, main_score=score, modalities=modalities,
        description="clips of the drawn world", reference=None, bibtex_citation="",
        dataset={"path": "drawn/world", "revision": "1"}, eval_splits=["test"],
        eval_langs=["eng-Latn"],
    )  # fmt: skip


class Drawn:
    """The clips, their captions and the motions in them."""

    def __init__(self, folder: Path):
        scenes = list(itertools.islice(draw_scenes(200, 7), 200))
        single = [scene for scene in scenes if len(scene.things) == 1][:COUNT]
        # Captions leave out details, and clips are of one frame, so that some are not found.
        self.csv = write_world(folder, single, seed=7, captions=0, partial=1)
        self.pairs = vp.read_captions(self.csv)
        assert len({pair.captions for pair in self.pairs}) == COUNT  # No ties.
        self.motions = [scene.things[0].motion for scene in single]
        self.names = sorted(set(self.motions))
        self.labels = [self.names.index(motion) for motion in self.motions]

    def videos(self, **columns: Any) -> Any:
        """A dataset: one half holds the bytes of the clips, the other half their paths."""
        files = [
            {"bytes": pair.video.read_bytes(), "path": None}
            if number % 2
            else {"bytes": None, "path": str(pair.video)}
            for number, pair in enumerate(self.pairs)
        ]
        table = datasets.Dataset.from_dict({"video": files, **columns})
        return table.cast_column("video", datasets.Video())


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    return Drawn(tmp_path_factory.mktemp("drawn") / "world")


def scores(model: Any, task: Any) -> dict[str, float]:
    result = mteb.evaluate(model, task, cache=None, show_progress_bar=False, co2_tracker=False)
    [found] = result.task_results[0].scores["test"]
    return dict(found)


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Processor]:
    model, processor = vp.load(DEMO_MODEL)
    return model, dataclasses.replace(processor, num_frames=1)


def cosines_by_hand(loaded: tuple[Any, Processor], drawn: Drawn) -> np.ndarray:
    """Of each clip (a row) and each caption."""
    encoded = vp.encode(*loaded, [pair.video for pair in drawn.pairs], batch_size=8)
    clips = np.stack([one.features["embedding"] for one in encoded])
    return clips @ vp.embed_texts(*loaded, [pair.captions[0] for pair in drawn.pairs]).T


@pytest.mark.parametrize("way", ["t2v", "v2t"])
def test_retrieval(way: str, drawn: Drawn, loaded: tuple[Any, Processor]) -> None:
    class World(AbsTaskRetrieval):
        metadata = metadata(
            f"Drawn{way}", "Any2AnyRetrieval", way, "ndcg_at_10",
            ["text", "video"] if way == "t2v" else ["video", "text"],
        )  # fmt: skip

        def load_data(self, **_: Any) -> None:
            ids = [f"v{n}" for n in range(COUNT)]
            names = [f"t{n}" for n in range(COUNT)]
            said = [pair.captions[0] for pair in drawn.pairs]
            videos = drawn.videos(id=ids)
            texts = datasets.Dataset.from_dict({"id": names, "text": said})
            queries, corpus = (texts, videos) if way == "t2v" else (videos, texts)
            owners = dict(zip(queries["id"], corpus["id"], strict=True))
            relevant = {query: {owner: 1} for query, owner in owners.items()}
            split = dict(queries=queries, corpus=corpus, relevant_docs=relevant, top_ranked=None)
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    found = scores(vp.mteb.load(DEMO_MODEL, num_frames=1), World())
    own = evaluate_retrieval(*loaded, drawn.pairs)["metrics"]
    name = {"t2v": "text_to_video", "v2t": "video_to_text"}[way]
    for most in (1, 5, 10):
        assert found[f"hit_rate_at_{most}"] == pytest.approx(own[f"{name}/recall@{most}"], abs=1e-5)
        assert found[f"recall_at_{most}"] == pytest.approx(own[f"{name}/recall@{most}"], abs=1e-5)
    assert 0.05 < own[f"{name}/recall@1"] < 1
    cosines = cosines_by_hand(loaded, drawn)
    cosines = cosines.T if way == "t2v" else cosines
    ranks = (cosines >= cosines.diagonal()[:, None]).sum(axis=1)
    gains = np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0)
    assert found["ndcg_at_10"] == pytest.approx(gains.mean(), abs=1e-5)


def test_zero_shot(drawn: Drawn, loaded: tuple[Any, Processor]) -> None:
    class World(AbsTaskZeroShotClassification):
        metadata = metadata(
            "DrawnZeroShot", "VideoZeroshotClassification", "v2t", "accuracy", ["video", "text"]
        )
        input_column_name = "video"

        def load_data(self, **_: Any) -> None:
            self.dataset = datasets.DatasetDict(test=drawn.videos(label=drawn.labels))
            self.data_loaded = True

        def get_candidate_labels(self) -> list[str]:
            return [f"a thing that is {name}" for name in drawn.names]

    found = scores(vp.mteb.load(DEMO_MODEL, num_frames=2), World())
    loaded[1].num_frames = 2
    listed = drawn.csv.with_name("motions.csv")
    rows = zip(drawn.pairs, drawn.motions, strict=True)
    listed.write_text("video,label\n" + "".join(f"{p.video},{motion}\n" for p, motion in rows))
    labelled = vp.read_labels(listed)
    own = evaluate_zero_shot(*loaded, labelled, ["a thing that is {}"])["metrics"]
    assert found["accuracy"] == pytest.approx(own["top1"])
    assert found["recall"] == pytest.approx(own["mean_class_accuracy"])
    assert 0.2 < own["top1"] < 1


def test_classification_and_clustering(drawn: Drawn) -> None:
    class Classes(AbsTaskClassification):
        metadata = metadata("DrawnClasses", "VideoClassification", "v2c", "accuracy", ["video"])
        input_column_name = "video"
        samples_per_label = 1
        n_experiments = 1

        def load_data(self, **_: Any) -> None:
            table = drawn.videos(label=drawn.labels)
            self.dataset = datasets.DatasetDict(train=table, test=table)
            self.data_loaded = True

    class Clusters(AbsTaskClustering):
        metadata = metadata("DrawnClusters", "VideoClustering", "v2c", "v_measure", ["video"])
        input_column_name = "video"
        label_column_name = "label"
        max_fraction_of_documents_to_embed = None
        max_document_to_embed = None

        def load_data(self, **_: Any) -> None:
            self.dataset = datasets.DatasetDict(test=drawn.videos(label=drawn.labels))
            self.data_loaded = True

    model = vp.mteb.load(DEMO_MODEL, towers="video")
    assert scores(model, Classes())["accuracy"] > 1.5 / len(drawn.names)
    assert 0 < scores(model, Clusters())["v_measure"] <= 1


def test_what_the_leaderboard_needs(drawn: Drawn, tmp_path: Path) -> None:
    model = vp.mteb.load(DEMO_MODEL)
    meta = model.mteb_model_meta
    assert isinstance(model, mteb.models.EncoderProtocol)
    assert meta.name == f"videoprism_mlx/{DEMO_MODEL}"
    assert meta.revision == sha256(SHIPPED[DEMO_MODEL] / "model.safetensors")
    arrays = mx.load(str(SHIPPED[DEMO_MODEL] / "model.safetensors"))
    assert meta.n_parameters == sum(array.size for array in arrays.values())
    assert meta.n_embedding_parameters == 128 * 96
    stored = sum(array.nbytes for array in arrays.values())
    assert meta.memory_usage_mb == pytest.approx(stored / 2**20, abs=0.1)
    assert (meta.embed_dim, meta.max_tokens, meta.modalities) == (96, 64, ["video", "text"])
    assert (meta.license, meta.open_weights, meta.training_datasets) == ("apache-2.0", True, set())
    assert meta.experiment_kwargs is None and meta.adapted_from is None
    assert meta.to_dict()["similarity_fn_name"] == "cosine"

    texts = vp.mteb.load(DEMO_MODEL, "bfloat16", towers="text", template="the {}", num_frames=2)
    assert texts.mteb_model_meta.modalities == ["text"]
    changed = {"dtype": "bfloat16", "template": "the {}", "num_frames": 2}
    assert texts.mteb_model_meta.experiment_kwargs == changed
    with pytest.raises(ValueError, match="none overlap"):
        scores(texts, mteb.get_task("Kinetics400ZeroShot"))
    again = texts.mteb_model_meta.load_model()
    assert again.mteb_model_meta.experiment_kwargs == changed
    assert again.towers == ("text",) and again.processor.template == "the {}"

    vp.save_model(vp.load_model(DEMO_MODEL), tmp_path / "mine")
    mine = vp.mteb.load(tmp_path / "mine", towers="video").mteb_model_meta
    assert (mine.name, mine.open_weights, mine.license) == ("videoprism_mlx/mine", False, None)


def test_a_released_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_models(monkeypatch, tmp_path)
    name = "videoprism_public_v1_large"
    for given in (name, "google/videoprism-large-f8r288", tmp_path / "cache" / "models" / name):
        meta = vp.mteb.load(given).mteb_model_meta
        assert (meta.name, meta.release_date) == (f"videoprism_mlx/{name}", "2025-06-03")
        assert meta.adapted_from == "google/videoprism-large-f8r288"
        assert meta.reference == "https://huggingface.co/google/videoprism-large-f8r288"
        assert (meta.modalities, meta.max_tokens, meta.n_embedding_parameters) == (
            ["video"],
            None,
            None,
        )
        assert "zhao2024videoprism" in meta.citation and meta.training_datasets is None
