"""What an evaluation measured, beside what others published for the same model and dataset."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import InputError, suggestion
from videoprism_mlx.evaluation.figures import DATASETS, SOURCES, Figure, with_protocol
from videoprism_mlx.models import RELEASES, canonical_name, get_config, whole_settings
from videoprism_mlx.weights.directory import CONFIG_FILE, read_config
from videoprism_mlx.weights.quantize.layers import is_quantized, packings_of
from videoprism_mlx.weights.quantize.settings import in_words

# A trained classifier is measured as a probe is: its encoder is frozen.
SAME_PROTOCOL = {"classifier": "probe"}


def figures_of(
    model: VideoPrismModel, protocol: str, dataset: str, adapters: str | Path | None = None
) -> list[Figure]:
    """The published figures of a released model, or of the one that a classifier was trained from.

    Raises InputError if there are none. The model needs no weights.
    """
    protocol = SAME_PROTOCOL.get(protocol, protocol)
    known = with_protocol(protocol)
    if dataset not in known:
        raise InputError(
            f"no {protocol} result was published for a dataset {dataset!r}"
            f"{suggestion(dataset, known)}; expected one of {', '.join(known)}"
        )
    found = DATASETS[dataset].figures[protocol]
    name = None if adapters is not None else released_name(model)
    own = [figure for figure in found if figure.model == name]
    if not own:
        models = ", ".join(dict.fromkeys(figure.model for figure in found))
        raise InputError(
            f"no {protocol} result for {dataset} was published of {model.called}"
            f"{' with adapters' if adapters is not None else ''}, only of {models}; "
            "leave the dataset out (--dataset) to measure the model alone"
        )
    return own


def released_name(model: VideoPrismModel) -> str | None:
    """The released model that this one is, or whose frozen encoder a classifier has.

    None if it is neither. A model directory says in config.json where its weights come from.
    """
    source = described(model).get("source")
    if not isinstance(source, Mapping):
        return released(model.given_name or "") if model.directory is None else None
    if "trained_from" in source:
        return released(str(source["trained_from"])) if model.num_classes else None
    for name, (repository, filename) in RELEASES.items():
        if source.get("repository") == repository or source.get("file") == filename:
            is_alike = whole_settings(get_config(name)) == whole_settings(model.config)
            return name if is_alike else None
    return None


def is_rounded(model: VideoPrismModel) -> bool:
    """Whether the weights of a model are quantized, or were."""
    return is_quantized(model) or "dequantized_from" in (described(model).get("source") or {})


def described(model: VideoPrismModel) -> dict[str, Any]:
    """What the config.json of a model's directory holds; nothing for a model without one."""
    directory = model.directory
    has_config = directory is not None and (directory / CONFIG_FILE).is_file()
    return read_config(directory) if directory is not None and has_config else {}


def released(name: str) -> str | None:
    """The name of the released model that `name` stands for; None if it stands for none."""
    known = canonical_name(name)
    return known if known in RELEASES else None


def beside(
    figures: Sequence[Figure], dataset: str, model: VideoPrismModel, result: Mapping[str, Any]
) -> dict[str, Any]:
    """The published figures beside those of a result, and how the protocols differ.

    Of each setting, `published` and `same` are None where the source does not say it.
    """
    by_source = {figure.source: figure for figure in figures}
    return {
        "dataset": dataset,
        "title": DATASETS[dataset].title,
        "model": figures[0].model,
        "figures": [
            {
                "metric": figure.metric,
                "here": result["metrics"].get(figure.metric),
                "published": figure.value,
                "source": figure.source,
            }
            for figure in figures
        ],
        "settings": [
            {
                "setting": setting,
                "here": here,
                "published": there,
                "same": None if there is None else here == there,
                "source": source,
            }
            for source, figure in by_source.items()
            for setting, (here, there) in settings(figure, model, result).items()
        ],
        "sources": {source: SOURCES[source] for source in by_source},
    }


def settings(
    figure: Figure, model: VideoPrismModel, result: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Each setting of the protocol: here, and where the figure was published."""
    noted = result["settings"]
    reading = noted["preprocessing"]
    config = get_config(figure.model)
    frames, rows, _ = config["pos_emb_shape"]
    both: dict[str, tuple[Any, Any]] = {
        "videos": (result.get("validation_videos", result["used"]), figure.videos)
    }
    if "texts" in result:
        both["texts"] = (result["texts"], figure.texts)
        both["captions"] = (noted["captions"], figure.captions)
    if "training_videos" in result:
        both["videos to train on"] = (result["training_videos"], None)
    prompts = noted.get("templates", [noted["template"]] if "template" in noted else None)
    if prompts:
        # The text that a model reads ends with a full stop in any case.
        here = [prompt.removesuffix(".") for prompt in prompts]
        both["prompts"] = (here, None if figure.prompt is None else [figure.prompt])
    # The released models are called after the frames and the size that they were trained with.
    both["frames"] = (reading["frames"], frames)
    rate = reading["fps"]
    both["sampling"] = (
        "without the end" if rate is None else f"{rate:g} a second",
        figure.sampling,
    )
    both["size"] = (reading["size"], rows * config["patch_size"])
    both["resize"] = (f"{reading['resize']}, {reading['resample']}", None)
    weights = noted["model"]["dtype"]
    if is_quantized(model):
        weights = in_words(packings_of(model)).partition(" (")[0]
    elif is_rounded(model):
        weights = f"dequantized, {weights}"
    both["weights"] = (weights, "float32" if figure.source == "README" else None)
    return both
