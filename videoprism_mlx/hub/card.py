"""The card of what is uploaded: the README.md that the Hub shows, and finds a repository by."""

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from videoprism_mlx.encoders import FactorizedVideoCLIP
from videoprism_mlx.errors import counted
from videoprism_mlx.evaluation.metrics import TITLES
from videoprism_mlx.files.record import own_version
from videoprism_mlx.hub.contents import ADAPTERS, CLASSIFIER, Contents, checksum_of, weights_file
from videoprism_mlx.models import RELEASES, canonical_name
from videoprism_mlx.weights.directory import named_parameters
from videoprism_mlx.weights.hub import split_revision
from videoprism_mlx.weights.outline import outline
from videoprism_mlx.weights.quantize.layers import is_quantized, packings_of
from videoprism_mlx.weights.quantize.settings import in_words

TEMPLATES = Path(__file__).parent / "templates"

# The licence of the official weights, as their pages on the Hub name it.
OFFICIAL_LICENCE = "apache-2.0"

# The last line of a card that was written here. A card that was changed since is kept.
MARK = "<!-- written by videoprism_mlx; a card that you edit is kept: {} -->"

# Labels that a card lists by name.
MOST_LABELS = 20


def model_card(
    contents: Contents,
    repository: str,
    revision: str | None = None,
    licence: str | None = None,
    checks: Sequence[str] = (),
) -> str:
    """The card of a model, a classifier or adapters, with its metadata.

    `checks` are lines about what else was compared.
    """
    reference = f"{repository}@{revision}" if revision else repository
    body = render(
        "model.md",
        repository=repository,
        what=what_of(contents),
        base=base_link(contents.base),
        command=command_of(contents, reference),
        code=code_of(contents, reference),
        facts=list(facts(contents)),
        made=list(made(contents)),
        checked=[*checked(contents), *checks],
        metrics=[metric(name, value) for name, value in contents.metrics.items()],
        licence=licence_text(contents, licence),
    )
    return with_mark(front_matter(metadata(contents, licence)) + body)


def render(template: str, **values: Any) -> str:
    """A template with these values."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template(template).render(**values)


def front_matter(data: Mapping[str, Any]) -> str:
    """The metadata of a card, in YAML."""
    from huggingface_hub import CardData

    given = {name: value for name, value in data.items() if value is not None}
    return f"---\n{CardData(**given).to_yaml()}\n---\n\n"


def with_mark(card: str) -> str:
    """A card with a last line by which `is_ours` knows it."""
    return f"{card.rstrip()}\n\n{MARK.format(digest(card.rstrip()))}\n"


def is_ours(card: str) -> bool:
    """Whether a card was written here, and not changed since."""
    text, _, mark = card.rstrip().rpartition("\n")
    return mark == MARK.format(digest(text.rstrip()))


def digest(text: str) -> str:
    """A short checksum of a text."""
    return f"{zlib.crc32(text.encode()):08x}"


def metadata(contents: Contents, licence: str | None) -> dict[str, Any]:
    """What the Hub sorts and finds models by. `library_name` and the first tag put it under MLX."""
    tags = ["mlx", "videoprism", "video"]
    if contents.kind == ADAPTERS:
        tags.append("lora")
    if isinstance(contents.model, FactorizedVideoCLIP):
        tags += ["video-text", "video-retrieval"]
    is_packed = not is_trained(contents) or "quantized_from" in source_of(contents)
    if "quantization" in contents.described and is_packed:
        tags.append(f"{contents.described['quantization']['bits']}-bit")
    is_classifier = contents.kind == CLASSIFIER
    base = on_hub(contents.base)
    return {
        "library_name": "mlx",
        "license": licence or official_licence(contents),
        "base_model": base,
        "base_model_relation": relation(contents) if base else None,
        "pipeline_tag": "video-classification" if is_classifier else "feature-extraction",
        "tags": tags,
    }


def on_hub(name: str | None) -> str | None:
    """The Hub id of a model that is known by its name."""
    named = None if name is None else split_revision(name)[0]
    known = None if named is None else canonical_name(named)
    if known is not None:
        return RELEASES[known].repository if known in RELEASES else None
    return named


def relation(contents: Contents) -> str | None:
    """How a model relates to its base, in the Hub's words; None for the same weights."""
    if contents.kind == ADAPTERS:
        return "adapter"
    if is_trained(contents):
        return "finetune"
    if is_rounded(contents):
        return "quantized"
    return None if "repository" in source_of(contents) else "finetune"


def is_trained(contents: Contents) -> bool:
    """Whether a model was trained from its base, or adapters were added to the base."""
    return not {"adapters", "trained_from"}.isdisjoint(source_of(contents))


def is_rounded(contents: Contents) -> bool:
    """Whether the weights are quantized, or were."""
    return "quantization" in contents.described or "dequantized_from" in source_of(contents)


def source_of(contents: Contents) -> Mapping[str, Any]:
    """What a config.json says about where the weights come from."""
    source = contents.described.get("source")
    return source if isinstance(source, Mapping) else {}


def official_licence(contents: Contents) -> str | None:
    """The licence of official weights that were only converted; None for all others."""
    repository = source_of(contents).get("repository")
    is_official = any(repository == release.repository for release in RELEASES.values())
    return OFFICIAL_LICENCE if is_official and contents.kind != ADAPTERS else None


def licence_text(contents: Contents, licence: str | None) -> str:
    """What the card says about the licence."""
    if licence is not None:
        return f"`{licence}`, as whoever uploaded it says."
    if official_licence(contents) is not None:
        return (
            "Apache-2.0, as the official weights. The\n"
            "[official repository](https://github.com/google-deepmind/videoprism) has its code "
            "under Apache-2.0,\nand its other materials under CC BY 4.0."
        )
    return "Whoever uploaded it has not named a licence."


def what_of(contents: Contents) -> str:
    """What is uploaded, as the beginning of a sentence."""
    if contents.kind == ADAPTERS:
        return "Adapters (LoRA) for a VideoPrism model"
    if contents.kind == CLASSIFIER:
        return "A classifier of videos on VideoPrism's encoder"
    if isinstance(contents.model, FactorizedVideoCLIP):
        return "A VideoPrism video-text model: embeddings of videos and of sentences in one space"
    if contents.processor is None:
        return "A VideoPrism text encoder"
    return "A VideoPrism video encoder"


def base_link(base: str | None) -> str | None:
    """The name of the base model, with a link if it is on the Hub."""
    repository = on_hub(base)
    return base if repository is None else f"[{base}](https://huggingface.co/{repository})"


def command_of(contents: Contents, reference: str) -> str:
    """A command that uses it."""
    if contents.kind == CLASSIFIER:
        return f"videoprism-mlx classify clip.mp4 --model {reference}"
    option = "--adapters" if contents.kind == ADAPTERS else "--model"
    if isinstance(contents.model, FactorizedVideoCLIP):
        text = '--text "playing drums" "a concert"'
        return f"videoprism-mlx similarity clip.mp4 {text} {option} {reference}"
    return f"videoprism-mlx embed clips -o features.npz {option} {reference}"


def code_of(contents: Contents, reference: str) -> str:
    """Python that uses it."""
    if contents.processor is None:
        return f'model = vp.load_model("{reference}")'
    option = "adapters=" if contents.kind == ADAPTERS else ""
    lines = [f'model, processor = vp.load({option}"{reference}")']
    if contents.kind == CLASSIFIER:
        lines.append('logits, _ = model(**processor(["clip.mp4"]))  # (1, classes)')
    elif isinstance(contents.model, FactorizedVideoCLIP):
        lines.append('inputs = processor(["clip.mp4"], texts=["playing drums", "a concert"])')
        lines.append("video, texts, _ = model(**inputs)  # (1, D) and (2, D), of length one")
    else:
        lines.append('features, _ = model(**processor(["clip.mp4"]))  # (1, T * N, D)')
    return "\n".join(lines)


def facts(contents: Contents) -> Iterator[tuple[str, str]]:
    """What the card's table says."""
    described, processor, model = contents.described, contents.processor, contents.model
    if contents.adapters is not None and model is not None:
        settings = contents.adapters
        yield "adapters of", f"rank {settings.rank}, alpha {settings.alpha:g}"
        layers = "all layers"
        if settings.layers is not None:
            layers = f"the last {counted(settings.layers, 'layer')} of each stack"
        yield "in", f"{' and '.join(settings.towers)}: {layers}"
    elif model is not None:
        yield "class", f"`{type(model).__name__}`"
        shapes = outline(model.config).shapes.values()
        yield "parameters", f"{sum(math.prod(shape) for shape in shapes):,}"
        yield "stored as", stored_as(contents)
    if processor is not None:
        size = f"{processor.size} x {processor.size}"
        yield "clips", f"{processor.num_frames} frames of {size}, {processor.resize}"
    if contents.labels is not None:
        names = contents.labels.names
        more = f" and {len(names) - MOST_LABELS} more" if len(names) > MOST_LABELS else ""
        listed = ", ".join(name.replace("|", "\\|") for name in names[:MOST_LABELS])
        kinds = " (a video may have several)" if contents.labels.multi_label else ""
        yield counted(len(names), "class", "classes") + kinds, listed + more
    if contents.base is not None:
        yield "base", f"`{contents.base}`"
    if (weights := (described.get("base") or {}).get("weights")) and contents.adapters is not None:
        yield "weights of the base", f"SHA-256 `{weights}`"


def stored_as(contents: Contents) -> str:
    """The type of the weights, and how they are quantized."""
    assert contents.model is not None
    names = {str(each.dtype) for each in named_parameters(contents.model).values()}
    types = sorted(name.removeprefix("mlx.core.") for name in names)
    if not is_quantized(contents.model):
        return ", ".join(types)
    return f"{in_words(packings_of(contents.model))}; what is not quantized as {types[0]}"


def made(contents: Contents) -> Iterator[str]:
    """How it was made, a line each."""
    source = source_of(contents)
    if contents.kind == ADAPTERS:
        version = contents.described.get("version")
        yield f"Trained on `{contents.base}` with videoprism_mlx {version}."
        return
    if "file" in source:
        origin = ""
        if repository := source.get("repository"):
            origin = f" of [{repository}](https://huggingface.co/{repository})"
            origin += f" at `{source.get('revision', 'main')}`"
        checksum = f", SHA-256 `{source['sha256']}`" if "sha256" in source else ""
        by = source.get("converter", "videoprism_mlx")
        kind = "the Flax checkpoint " if str(source["file"]).endswith(".npz") else ""
        yield f"Converted from {kind}`{source['file']}`{origin}{checksum}, by {by}."
    elif "trained_from" in source:
        yield f"Trained from `{source['trained_from']}` with videoprism_mlx."
    elif "adapters" in source:
        yield f"Adapters were added to the weights of `{source.get('base')}`."
    elif source.keys().isdisjoint({"quantized_from", "dequantized_from"}):
        yield "Its directory does not say what it was made from."
    if "quantization" in contents.described:
        name = contents.base or "a model directory"
        if not is_trained(contents):
            yield f"Quantized from {name}: {stored_as(contents)}."
        elif "quantized_from" in source:
            yield f"Then quantized: {stored_as(contents)}."
    elif "dequantized_from" in source:
        yield "Dequantized: each weight is what the packed one stood for, not what it was before."


def checked(contents: Contents) -> Iterator[str]:
    """How it was checked before the upload, a line each."""
    file = weights_file(contents)
    yield (
        f"videoprism_mlx {own_version()} has loaded it strictly: every parameter is there, in the "
        "right shape, and no other; none is NaN or infinite."
    )
    if checksum := checksum_of(contents):
        yield f"SHA-256 of `{file}`: `{checksum}`. Loading compares it."
    is_exact = contents.kind != ADAPTERS and not is_rounded(contents)
    if is_exact and official_licence(contents) is not None:
        yield (
            "`videoprism-mlx check --model` compares it with figures that others published for "
            "the official weights."
        )


def metric(name: str, value: float) -> tuple[str, str]:
    """A metric as the card shows it."""
    return TITLES.get(name, name.replace("_", " ")), f"{value:.4g}"
