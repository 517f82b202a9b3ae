"""The picture of probes: what it shows, and where it is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from videoprism_mlx.cli import main
from videoprism_mlx.errors import InputError
from videoprism_mlx.pictures import write_probes

ROWS: list[dict[str, Any]] = [
    {
        "size": size,
        "videos": videos,
        "mean": {"top1": mean, "top5": 1.0},
        "spread": {"top1": spread, "top5": 0.0},
        "runs": [{"seed": 0, "top1": mean - 0.1, "top5": 1}, {"seed": 1, "top1": mean + 0.1}],
    }
    for size, videos, mean, spread in (("all", 400, 0.8, 0.05), (16, 16, 0.3, None))
]


def test_means_spreads_probes_and_what_was_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, list[Any]] = {"errorbar": [], "plot": [], "axhline": []}

    def noting(name: str) -> Any:
        original = getattr(Axes, name)

        def noted(axes: Axes, *arguments: Any, **options: Any) -> Any:
            drawn[name].append((arguments, options.get("label")))
            return original(axes, *arguments, **options)

        return noted

    for name in drawn:
        monkeypatch.setattr(Axes, name, noting(name))
    write_probes(tmp_path / "p.png", ROWS, {"top1": "top-1 accuracy"}, {"top1": 0.829})
    [((videos, means, spreads), label)] = drawn["errorbar"]
    assert (videos, means, spreads) == ([16, 400], [0.3, 0.8], [0, 0.05])  # By size, not as given.
    assert label == "top-1 accuracy"
    dots = next(arguments for arguments, _ in drawn["plot"] if arguments[-1] == "o")
    np.testing.assert_allclose(dots[1], [0.2, 0.4, 0.7, 0.9])
    assert drawn["axhline"] == [((0.829,), "top-1 accuracy, published")]
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.format == "PNG" and picture.size == (1200, 630)


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no probes to draw"):
        write_probes(tmp_path / "p.png", [])


@pytest.mark.parametrize(
    ("picture", "message"),
    [("p.jpg", "p.jpg does not end in .png"), ("no.csv/p.png", "no.csv")],
)
def test_a_picture_that_cannot_be_written_is_refused_first(
    picture: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no.csv").touch()
    arguments = ["evaluate", "probe", "--data", "gone.csv", "--val", "gone.csv", "--model", "gone"]
    assert main([*arguments, "--picture", str(tmp_path / picture)]) == 2
    assert message in capsys.readouterr().err
