"""The same work done by this package and by others, in turns. Outputs are compared first.

    PYTHONPATH=/path/to/videoprism python -m benchmarks.peers [--models base "video-text base"]
        [--peers mlx flax transformers mine.module:make] [--rounds 5] [--save]

Each peer has its own process, which waits while another works. All have the same random weights
and the same inputs: a clip, and three texts padded to 64. Flax is the official code, compiled. A
peer that is not installed is left out. `mine.module:make` is any callable that takes a
configuration and the path of a Flax checkpoint. It returns a function from inputs, by keyword, to
outputs, which are NumPy arrays with the same names as those of `mlx`.
"""

import argparse
import importlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.timing import ratios, save
from benchmarks.work import MODELS, inputs_of
from videoprism_mlx.convert import draw_checkpoint, flax_to_mlx, mlx_to_transformers
from videoprism_mlx.convert.verify import distance
from videoprism_mlx.errors import MissingLibraryError
from videoprism_mlx.models import get_config

Arrays = dict[str, npt.NDArray[Any]]
Forward = Callable[[Arrays], Arrays]

OURS = "mlx"
BUILT_IN = (OURS, "mlx-plain", "flax", "transformers")

# If outputs are further apart than this, the work is not the same. Single precision itself can be
# this inexact when attention reaches its cap.
FURTHEST = 1e-3


def make_mlx(config: Mapping[str, Any], checkpoint: Path) -> Forward:
    """This package."""
    import mlx.core as mx

    import videoprism_mlx as vp
    from videoprism_mlx.convert.verify import named_outputs

    with tempfile.TemporaryDirectory() as folder:
        model = vp.load_model(flax_to_mlx(checkpoint, f"{folder}/model", config).output)
        mx.eval(model.parameters())

    def forward(inputs: Arrays) -> Arrays:
        outputs = named_outputs(model(**inputs))
        mx.eval(outputs)
        return {name.split("/")[-1]: np.array(array) for name, array in outputs.items()}

    return forward


def make_mlx_plain(config: Mapping[str, Any], checkpoint: Path) -> Forward:
    """This package without its shortcuts."""
    from videoprism_mlx.runtime import device

    forward = make_mlx(config, checkpoint)

    def plainly(inputs: Arrays) -> Arrays:
        with device.plain():
            return forward(inputs)

    return plainly


def make_flax(config: Mapping[str, Any], checkpoint: Path) -> Forward:
    """The official model as it is released: scanned layers, compiled."""
    from videoprism_mlx.convert.official import (
        flax_model,
        libraries,
        numpy_outputs,
        read_variables,
    )

    model = flax_model(config, np.float32, scan=True)
    variables = read_variables(checkpoint, np.float32, scan=True)
    forward = libraries().jax.jit(lambda variables, inputs: model.apply(variables, **inputs))

    def run(inputs: Arrays) -> Arrays:
        outputs = numpy_outputs(forward(variables, inputs))
        return {name.split("/")[-1]: array for name, array in outputs.items()}

    return run


def transformers_model(config: Mapping[str, Any], checkpoint: Path) -> Any:
    """The model of Hugging Face Transformers, with our weights."""
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        ours = flax_to_mlx(checkpoint, f"{folder}/ours", config).output
        theirs = mlx_to_transformers(ours, f"{folder}/theirs")
        model_class = getattr(transformers, theirs.model)
        model, info = model_class.from_pretrained(theirs.output, output_loading_info=True)
    if any(info.values()):
        raise SystemExit(f"Transformers has other parameters: {info}")
    return model.eval()


def make_transformers(config: Mapping[str, Any], checkpoint: Path) -> Forward:
    """Hugging Face Transformers, in PyTorch."""
    import torch

    model = transformers_model(config, checkpoint)
    has_text = "vocabulary_size" in config

    def run(inputs: Arrays) -> Arrays:
        videos = torch.from_numpy(np.moveaxis(inputs["inputs"], -1, 2).copy())
        with torch.inference_mode():
            if not has_text:
                return {"0": model(pixel_values_videos=videos).last_hidden_state.numpy()}
            outputs = model(
                pixel_values_videos=videos,
                input_ids=torch.from_numpy(inputs["text_token_ids"]).long(),
                attention_mask=torch.from_numpy(1 - inputs["text_paddings"]),
            )
        return {"0": outputs.video_embeds.numpy(), "1": outputs.text_embeds.numpy()}

    return run


MAKERS = {
    OURS: make_mlx,
    "mlx-plain": make_mlx_plain,
    "flax": make_flax,
    "transformers": make_transformers,
}


def maker(peer: str) -> Callable[[Mapping[str, Any], Path], Forward]:
    """The function that makes a peer."""
    if peer in MAKERS:
        return MAKERS[peer]
    module, _, name = peer.partition(":")
    if not name:
        raise SystemExit(
            f"no peer is called {peer!r}; expected {', '.join(MAKERS)}, or module:name"
        )
    found: Callable[[Mapping[str, Any], Path], Forward] = getattr(
        importlib.import_module(module), name
    )
    return found


def work(peer: str, config: str, checkpoint: str, folder: str) -> None:
    """The process of one peer. It does the work once for every line that it reads."""
    inputs = dict(np.load(f"{folder}/inputs.npz"))
    answers = sys.stdout
    sys.stdout = sys.stderr
    try:
        forward = maker(peer)(json.loads(config), Path(checkpoint))
    except (ImportError, MissingLibraryError) as error:
        print(json.dumps({"missing": str(error)}), file=answers, flush=True)
        return
    outputs: dict[str, Any] = forward(inputs)
    np.savez(f"{folder}/outputs_{safe(peer)}.npz", **outputs)
    print(json.dumps({}), file=answers, flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        forward(inputs)
        seconds = time.perf_counter() - started
        unit = 1 if sys.platform == "darwin" else 1024
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        answer = {"seconds": seconds, "resident_gb": resident / 1e9}
        if peer.startswith(OURS):
            import mlx.core as mx

            answer["mlx_peak_gb"] = mx.get_peak_memory() / 1e9
        print(json.dumps(answer), file=answers, flush=True)


def safe(peer: str) -> str:
    """A peer's name, for the name of a file."""
    return "".join(c if c.isalnum() else "_" for c in peer)


class Worker:
    """A peer in its own process."""

    def __init__(
        self,
        peer: str,
        config: Mapping[str, Any],
        checkpoint: Path,
        folder: Path,
        module: str = "benchmarks.peers",
    ):
        self.peer = peer
        arguments = ["--worker", peer, json.dumps(config), str(checkpoint), str(folder)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin is not None and self.process.stdout is not None  # Pipes.
        self.questions, self.answers = self.process.stdin, self.process.stdout
        self.missing = self._answer().get("missing")

    def run(self) -> dict[str, float]:
        """Does the work once, and returns seconds and memory."""
        self.questions.write("\n")
        self.questions.flush()
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        self.questions.close()
        self.process.wait()

    def _answer(self) -> dict[str, Any]:
        line = self.answers.readline()
        if not line:
            raise SystemExit(f"{self.peer} ended, exit code {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def compare(name: str, peers: list[str], rounds: int) -> dict[str, Any]:
    """Compares the outputs of the peers on one model, and times them."""
    config = get_config(MODELS.get(name, name))
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as given:
        folder = Path(given)
        checkpoint = draw_checkpoint(config, folder / "checkpoint.npz", gain=1.0)
        np.savez(folder / "inputs.npz", **inputs_of(name))
        workers = []
        for peer in peers:
            worker = Worker(peer, config, checkpoint, folder)
            if worker.missing:
                print(f"{peer} is left out: {worker.missing}", file=sys.stderr)
                continue
            workers.append(worker)
        ours = dict(np.load(folder / f"outputs_{safe(OURS)}.npz"))
        for worker in workers:
            theirs = dict(np.load(folder / f"outputs_{safe(worker.peer)}.npz"))
            apart = {key: distance(theirs[key], ours[key]) for key in ours if key in theirs}
            figures[worker.peer] = {"distance": max(apart.values())}
            if not max(apart.values()) <= FURTHEST:
                print(f"{worker.peer} computes something else: {apart}", file=sys.stderr)
        seconds: dict[str, list[float]] = {worker.peer: [] for worker in workers}
        for _ in range(rounds):
            for worker in workers:
                answer = worker.run()
                seconds[worker.peer].append(answer.pop("seconds"))
                figures[worker.peer] |= answer
        for worker in workers:
            worker.close()
    for peer, each in seconds.items():
        figures[peer] |= {
            "seconds": statistics.median(each),
            "to_ours": ratios(seconds, OURS, peer),
        }
    return figures


def main() -> int:
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=["base", "video-text base"], metavar="NAME")
    parser.add_argument("--peers", nargs="+", default=list(BUILT_IN), metavar="PEER")
    parser.add_argument("--rounds", type=int, default=5, help="measured turns")
    parser.add_argument(
        "--save", action="store_true", help="write the figures to benchmarks/results"
    )
    options = parser.parse_args()

    peers = [OURS, *(peer for peer in options.peers if peer != OURS)]
    figures: dict[str, Any] = {}
    print("| model | by | seconds | ours to it (extremes) | resident GB | outputs apart |")
    print("|---|---|---:|---:|---:|---:|")
    for name in options.models:
        figures[name] = compare(name, peers, options.rounds)
        for peer, row in figures[name].items():
            to = row["to_ours"]
            memory = f"{row['resident_gb']:.2f}"
            if "mlx_peak_gb" in row:
                memory += f" (MLX {row['mlx_peak_gb']:.2f})"
            print(
                f"| {name} | {peer} | {row['seconds']:.2f} | {to['median']:.2f} "
                f"({to['least']:.2f} to {to['most']:.2f}) | {memory} | {row['distance']:.0e} |",
                flush=True,
            )
    if options.save:
        save("peers", "python -m benchmarks.peers", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
