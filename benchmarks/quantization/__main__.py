"""What quantization saves and what it costs.

    python -m benchmarks.quantization [search | quality | cost]... [--ways "8 bits" "4 bits"]
                                      [--models "video-text base" base] [--save]

`search`: how well the small model that ships finds drawn clips that it was not trained on.
`quality`: the smallest cosine to float32 of a row of each feature, of full-size models with drawn
weights. With a gain of 3, attention reaches the cap of its logits, and every model turns rows
further than with the published weights; with 1, it stays far below. `cost`: bytes, memory, and
time in turns with float32.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.quantization import cost, quality, search
from benchmarks.quantization.ways import WAYS
from benchmarks.timing import RESULTS, save

PARTS = ("search", "quality", "cost")
GAINS = (1.0, 3.0)
SEEDS = range(5)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The figures of the parts that are asked for."""
    found: dict[str, Any] = {}
    if "search" in options.parts:
        print("search with the small model, Recall@1")
        found["search"] = search.compare(options.ways, list(SEEDS))
    if "quality" in options.parts:
        found["quality"] = {}
        for name in options.models:
            for gain in options.gains:
                print(f"\n{name} with drawn weights, gain {gain:g}: smallest cosine to float32")
                load = quality.drawn_model(name, folder, gain)
                case = f"{name}, gain {gain:g}"
                found["quality"][case] = quality.compare(load, options.ways, [0])
    if "cost" in options.parts:
        found["cost"] = {}
        for name in options.models:
            print(f"\n{name}: bytes of the weights, bytes held, peak, time beside float32")
            load = quality.drawn_model(name, folder, 1.0)
            found["cost"][name] = cost.compare(name, load, options.ways, options.rounds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", default=list(PARTS))
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--models", nargs="+", default=["video-text base", "base"])
    parser.add_argument("--gains", nargs="+", type=float, default=list(GAINS))
    parser.add_argument("--rounds", type=int, default=3, help="measured passes of each")
    parser.add_argument("--keep", type=Path, help="a folder for the drawn models, which stay there")
    parser.add_argument("--save", action="store_true", help="keep the figures, beside earlier ones")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options, options.keep or Path(folder))
    if options.save:
        path = RESULTS / "quantization.json"
        earlier = json.loads(path.read_text()) if path.exists() else {}
        kept = {part: earlier[part] for part in PARTS if part in earlier}
        save("quantization", "python -m benchmarks.quantization", merged(kept, found))


def merged(earlier: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Nested figures, where new ones replace those of the same name."""
    result = dict(earlier)
    for key, value in new.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


if __name__ == "__main__":
    main()
