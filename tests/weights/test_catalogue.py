"""The list of models, and which of them are on this machine."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

import videoprism_mlx as vp
from videoprism_mlx.cli import main
from videoprism_mlx.models import CONFIGS, DEMO_MODEL, RELEASES, SHIPPED


@pytest.fixture
def nothing_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import huggingface_hub.constants

    monkeypatch.setenv("VIDEOPRISM_MLX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache"


def test_all_models_are_listed_with_their_parameters(nothing_cached: Path) -> None:
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    models = {model.name: model for model in vp.list_models()}
    assert mx.get_peak_memory() <= before + 2**20  # No weights were drawn.
    assert set(models) == set(CONFIGS)
    assert [name for name, model in models.items() if model.weights] == [*RELEASES, *SHIPPED]
    assert models["videoprism_lvt_public_v1_base"].parameters == 247_623_424
    tiny = models[DEMO_MODEL]
    arrays: Any = tree_flatten(vp.load_model(DEMO_MODEL).parameters())
    assert tiny.parameters == sum(array.size for _, array in arrays)
    assert (tiny.weights, tiny.directory) == ("shipped", SHIPPED[DEMO_MODEL])
    assert tiny.bytes == sum(path.stat().st_size for path in SHIPPED[DEMO_MODEL].iterdir())
    assert all(models[name].directory is None for name in RELEASES)
    assert not nothing_cached.exists()


def test_what_is_in_the_cache(
    released: Callable[[str], list[Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    released("encoder")
    assert {m.name: m.directory for m in vp.list_models()}["videoprism_tiny"] is None
    vp.load_model("videoprism_tiny")
    vp.load_model("videoprism_tiny", revision="v2")
    kept = tmp_path / "cache" / "models"
    rows = {model.name: model for model in vp.list_models()}
    for name in ("videoprism_tiny", "videoprism_tiny@v2"):
        assert rows[name].directory == kept / name and rows[name].weights == "published"
        assert rows[name].bytes == sum(path.stat().st_size for path in (kept / name).iterdir())

    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if line.startswith("videoprism_tiny@v2 "))
    assert row.split()[1:] == [f"{rows['videoprism_tiny'].parameters:,}", "0.1", "MB", "in", "the",
                               "cache"]  # fmt: skip
    lines.remove(f"cache: {tmp_path / 'cache'}")
    assert all(len(line) <= 80 for line in lines)

    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cache"] == str(tmp_path / "cache")
    assert [each["name"] for each in found["models"]] == list(rows)
    assert {each["name"]: each["bytes"] for each in found["models"]} == {
        name: model.bytes for name, model in rows.items()
    }
