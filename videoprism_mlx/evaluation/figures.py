"""Figures that others published for the released models. This project measured none of them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

# The sources of figures. MTEB has measured the Transformers port.
SOURCES = {
    "README": "https://github.com/google-deepmind/videoprism",
    "MTEB": "https://github.com/embeddings-benchmark/mteb",
}

TOWERS = ("videoprism_lvt_public_v1_base", "videoprism_lvt_public_v1_large")
ENCODERS = ("videoprism_public_v1_base", "videoprism_public_v1_large")


class Figure(NamedTuple):
    """A published result of one model, a share from 0 to 1, and what is said of its protocol.

    `metric` is the name of the same metric in a result here. What the source does not say is None:
    how many videos and texts there were, how a video's captions became texts, the prompt, and where
    frames were taken.
    """

    model: str
    metric: str
    value: float
    source: str
    videos: int | None = None
    texts: int | None = None
    captions: str | None = None
    prompt: str | None = None
    sampling: str | None = None


class Dataset(NamedTuple):
    """A dataset with published results, by the protocol that measures them."""

    title: str
    figures: Mapping[str, tuple[Figure, ...]]


def of_both(
    models: tuple[str, str],
    metric: str,
    percentages: tuple[float, float | None],
    source: str = "README",
    **protocol: Any,
) -> tuple[Figure, ...]:
    """The figures of a base and a large model. `protocol` are the last fields of a Figure."""
    return tuple(
        Figure(model, metric, round(percentage / 100, 6), source, **protocol)
        for model, percentage in zip(models, percentages, strict=True)
        if percentage is not None
    )


def retrieval(
    t2v: tuple[float, float], v2t: tuple[float, float], videos: int | None = None
) -> tuple[Figure, ...]:
    """Recall@1 in both directions, as in the official README."""
    ways = {"text_to_video/recall@1": t2v, "video_to_text/recall@1": v2t}
    return tuple(
        figure
        for metric, both in ways.items()
        for figure in of_both(TOWERS, metric, both, videos=videos, texts=videos)
    )


def zero_shot(base: float, large: float, metric: str = "top1") -> tuple[Figure, ...]:
    """Zero-shot classification, as in the official README."""
    return of_both(TOWERS, metric, (base, large))


def probe(base: float, large: float, metric: str = "top1") -> tuple[Figure, ...]:
    """An attentive pooler on the frozen encoder, as in the official README."""
    return of_both(ENCODERS, metric, (base, large))


def by_mteb(metric: str, base: float, large: float | None, **protocol: Any) -> tuple[Figure, ...]:
    """Figures of MTEB, which spreads frames from the first of a video to the last."""
    both = (base, large)
    return of_both(TOWERS, metric, both, "MTEB", sampling="to the last frame", **protocol)


def mteb_msrvtt(metric: str, base: float, large: float) -> tuple[Figure, ...]:
    """Recall@1 as MTEB measured it, with captions as they are.

    Its task has 879 pairs of the 1,000: the shares are of 879, and not of the 1,758 samples that it
    counts, which are queries and documents together.
    """
    return by_mteb(metric, base, large, videos=879, texts=879, prompt="{}")


# The README names no metrics. Here they are those of VideoGLUE: mean average precision of Charades,
# otherwise top-1 accuracy. What no command here measures is left out: when or where something
# happens (ActivityNet of VideoGLUE, AVA, AVA-K, Charades-STA), and answers (NExT-QA).
DATASETS = {
    "msrvtt": Dataset(
        "MSRVTT-1K",
        {
            "retrieval": (
                *retrieval(t2v=(50.1, 50.1), v2t=(49.8, 50.6), videos=1000),
                *mteb_msrvtt("text_to_video/recall@1", 50.06, 51.54),
                *mteb_msrvtt("video_to_text/recall@1", 49.83, 50.97),
            )
        },
    ),
    "vatex": Dataset("VATEX", {"retrieval": retrieval(t2v=(56.2, 57.2), v2t=(73.1, 75.0))}),
    "activitynet": Dataset(
        "ActivityNet", {"retrieval": retrieval(t2v=(48.8, 51.3), v2t=(47.9, 49.1))}
    ),
    "k400": Dataset(
        "Kinetics-400",
        {
            "zero-shot": (
                *zero_shot(69.2, 72.4),
                *by_mteb("top1", 67.56, None, prompt="a video of {}"),
            ),
            "probe": probe(82.9, 85.0),
        },
    ),
    "mit": Dataset("Moments in Time", {"probe": probe(39.7, 43.3)}),
    "ssv2": Dataset("Something-Something v2", {"probe": probe(62.2, 64.6)}),
    "ssv2-temporal": Dataset("SSv2 (Temporal)", {"zero-shot": zero_shot(14.6, 18.0)}),
    "ssv2-events": Dataset("SSv2 (Events)", {"zero-shot": zero_shot(11.3, 12.4)}),
    "diving48": Dataset("Diving48", {"probe": probe(64.3, 67.6)}),
    "charades": Dataset(
        "Charades", {"zero-shot": zero_shot(26.9, 32.4, "map"), "probe": probe(43.5, 53.2, "map")}
    ),
}


def with_protocol(protocol: str) -> list[str]:
    """The datasets that have published results of a protocol."""
    return [name for name, dataset in DATASETS.items() if protocol in dataset.figures]
