"""`videoprism-mlx similarity` and `classify`: videos and words."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videoprism_mlx.cli import shared
from videoprism_mlx.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from videoprism_mlx.features.processor import Processor


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds both commands."""
    parser = commands.add_parser(
        "similarity",
        help="how alike videos and texts are",
        description="Prints the cosine of each video with each text, and the softmax over texts "
        "of the official demo, best first.",
    )
    parser.add_argument(
        "--video", nargs="+", action="extend", required=True, metavar="PATH", help="see embed"
    )
    add_texts(parser, "--text")
    add_common(parser)
    parser.set_defaults(run=run_similarity)

    parser = commands.add_parser(
        "classify",
        help="which of some labels a video shows",
        description="Prints the likeliest labels of each video: with a video-text model those "
        "whose prompt is most alike, with a classifier those of its head. Where a video may have "
        "several of a classifier's labels, the probability of each is on its own.",
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="see embed")
    add_texts(parser, "--labels", required=False)
    parser.add_argument("--top-k", type=int, default=5, help="how many (default: %(default)s)")
    add_common(parser)
    parser.set_defaults(run=run_classify)


def add_texts(
    parser: argparse.ArgumentParser, option: str, required: bool = True, help: str | None = None
) -> None:
    """Texts on the command line or in a file."""
    group = parser.add_mutually_exclusive_group(required=required)
    group.add_argument(option, dest="texts", nargs="+", action="extend", metavar="TEXT", help=help)
    group.add_argument(
        f"{option}-file", dest="texts_file", type=Path, metavar="FILE", help="a line each"
    )


def add_common(parser: argparse.ArgumentParser) -> None:
    """What both commands take."""
    parser.add_argument(
        "--template", help="the prompt, with {} for the text (default: a video of {}.)"
    )
    parser.add_argument("--temperature", type=float, help="of the softmax (default: 0.01)")
    shared.add_model(parser)
    shared.add_frames(parser)
    shared.add_reading(parser)
    shared.add_json(parser)


def run_similarity(options: argparse.Namespace) -> int:
    from videoprism_mlx.features.text import require_text
    from videoprism_mlx.video.sampling import find_videos

    texts = read_texts(options)
    videos = find_videos(options.video)
    model, processor, _ = load(options)
    require_text(model)
    code = 0
    for name, cosines, chances in compared(options, model, processor, videos, texts):
        if cosines is None:
            code = 1
            continue
        if options.json:
            rows = {"cosine": cosines.tolist(), "probability": chances.tolist()}
            shared.print_json({"video": name, "texts": texts, **rows})
            continue
        print(f"{name}\n  cosine  softmax  text")
        for place in chances.argsort(kind="stable")[::-1]:
            print(f"  {cosines[place]:6.3f}  {chances[place]:7.1%}  {texts[place]}")
    return code


def run_classify(options: argparse.Namespace) -> int:
    from videoprism_mlx.video.sampling import find_videos
    from videoprism_mlx.weights.labels import load_labels

    if options.top_k < 1:
        raise InputError(f"--top-k is {options.top_k}; expected 1 or more")
    videos = find_videos(options.paths)
    has_labels = options.texts is not None or options.texts_file is not None
    labels = read_texts(options) if has_labels else None
    model, processor, directory = load(options)
    if (count := model.num_classes) is not None:
        own = load_labels(directory, count)
        results = classified(options, model, processor, videos, own.multi_label)
        labels = labels or own.names
        if len(labels) != count:
            raise InputError(f"there are {len(labels)} labels; expected {count}, one a class")
    elif labels is None:
        raise InputError("say with --labels or --labels-file what the videos may show")
    else:
        comparisons = compared(options, model, processor, videos, labels)
        results = ((name, chances) for name, _, chances in comparisons)
    code = 0
    for name, chances in results:
        if chances is None:
            code = 1
            continue
        best = chances.argsort(kind="stable")[::-1][: options.top_k]
        if options.json:
            top = [{"label": labels[i], "probability": float(chances[i])} for i in best]
            shared.print_json({"video": name, "labels": top})
        else:
            print(name)
            print("".join(f"  {chances[i]:6.1%}  {labels[i]}\n" for i in best), end="")
    return code


def load(options: argparse.Namespace) -> tuple[Any, "Processor", Path]:
    """As `shared.load`, with the demo's prompt if no other is given."""
    from videoprism_mlx.features.processor import PROMPT, check_template

    options.template = shared.given(options.template, PROMPT)
    check_template(options.template)
    return shared.load(options)


def read_texts(options: argparse.Namespace) -> list[str]:
    """The texts of the command line or the file."""
    texts = options.texts
    if options.texts_file is not None:
        try:
            lines = options.texts_file.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise InputError(f"{options.texts_file} is not text in UTF-8 ({error})") from None
        texts = [line.strip() for line in lines if line.strip()]
    shared.require_words(texts)
    if not texts:
        raise InputError(f"{options.texts_file} holds no text; expected one a line")
    return texts


def usable(
    options: argparse.Namespace,
    model: Any,
    processor: "Processor",
    videos: Mapping[str, Path],
    feature: str,
) -> "Iterator[tuple[str, np.ndarray | None]]":
    """A feature of each video, None where the video had to be skipped."""
    from tqdm import tqdm

    from videoprism_mlx.features.encode import encode

    results = encode(
        model,
        processor,
        videos.values(),
        batch_size=1,
        features=[feature],
        errors="yield",
        partial=options.partial,
    )
    disable = True if len(videos) == 1 or sys.stdout.isatty() else None
    bar = tqdm(videos.items(), unit="video", disable=disable)
    for (name, path), encoded in zip(bar, results, strict=True):
        if encoded.error is not None:
            bar.clear()
            shared.complain(path, encoded.error)
        yield name, encoded.features.get(feature)


def compared(
    options: argparse.Namespace,
    model: Any,
    processor: "Processor",
    videos: Mapping[str, Path],
    texts: Sequence[str],
) -> "Iterator[tuple[str, np.ndarray | None, np.ndarray | None]]":
    """Each video's cosines (Q,) with the texts and their softmax; None of a skipped one."""
    from videoprism_mlx.features.text import TEMPERATURE, embed_texts, probabilities

    temperature = shared.given(options.temperature, TEMPERATURE)
    text_embeddings = embed_texts(model, processor, texts)
    for name, embedding in usable(options, model, processor, videos, "embedding"):
        if embedding is None:
            yield name, None, None
        else:
            cosines = text_embeddings @ embedding
            yield name, cosines, probabilities(cosines, temperature)


def classified(
    options: argparse.Namespace,
    model: Any,
    processor: "Processor",
    videos: Mapping[str, Path],
    multi_label: bool,
) -> "Iterator[tuple[str, np.ndarray | None]]":
    """Each video's probabilities (classes,) by a classifier's head; None of a skipped one."""
    import mlx.core as mx
    import numpy as np

    from videoprism_mlx.evaluation.metrics import class_probabilities

    temperature = shared.given(options.temperature, 1.0)
    for name, pooled in usable(options, model, processor, videos, "pooled"):
        if pooled is None:
            yield name, None
        else:
            logits = np.array(model.projection(mx.array(pooled)).astype(mx.float32))
            yield name, class_probabilities(logits, multi_label, temperature)
