"""VideoPrism in MLX."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from videoprism_mlx.runtime import blas, precision

blas.preload()  # Before anything imports MLX.
precision.prefer_full()  # Before MLX computes a product.

__version__: str

if TYPE_CHECKING:  # Type checkers read these lines, and not _HOMES and __getattr__ below.
    from videoprism_mlx import convert as convert
    from videoprism_mlx import mteb as mteb
    from videoprism_mlx.datasets.captions import read_captions as read_captions
    from videoprism_mlx.datasets.labels import read_labels as read_labels
    from videoprism_mlx.encoders import FactorizedEncoder as FactorizedEncoder
    from videoprism_mlx.encoders import FactorizedVideoClassifier as FactorizedVideoClassifier
    from videoprism_mlx.encoders import FactorizedVideoCLIP as FactorizedVideoCLIP
    from videoprism_mlx.encoders import TextEncoder as TextEncoder
    from videoprism_mlx.errors import CheckpointError as CheckpointError
    from videoprism_mlx.errors import VideoError as VideoError
    from videoprism_mlx.errors import VideoPrismError as VideoPrismError
    from videoprism_mlx.evaluation.protocols import evaluate_classifier as evaluate_classifier
    from videoprism_mlx.evaluation.protocols import evaluate_retrieval as evaluate_retrieval
    from videoprism_mlx.evaluation.protocols import evaluate_zero_shot as evaluate_zero_shot
    from videoprism_mlx.features.compare import classify as classify
    from videoprism_mlx.features.compare import compare as compare
    from videoprism_mlx.features.embed import embed as embed
    from videoprism_mlx.features.encode import encode as encode
    from videoprism_mlx.features.processor import Processor as Processor
    from videoprism_mlx.features.processor import load as load
    from videoprism_mlx.features.text import embed_texts as embed_texts
    from videoprism_mlx.features.text import probabilities as probabilities
    from videoprism_mlx.features.text.store import save_text_embeddings as save_text_embeddings
    from videoprism_mlx.features.timeline import video_peaks as video_peaks
    from videoprism_mlx.features.tokenizer import load_text_tokenizer as load_text_tokenizer
    from videoprism_mlx.features.windows import encode_windows as encode_windows
    from videoprism_mlx.hub.cache import cache_contents as cache_contents
    from videoprism_mlx.hub.cache import prune_cache as prune_cache
    from videoprism_mlx.hub.upload import upload as upload
    from videoprism_mlx.library.filters import Where as Where
    from videoprism_mlx.library.library import Library as Library
    from videoprism_mlx.models import get_model as get_model
    from videoprism_mlx.models import has_model as has_model
    from videoprism_mlx.runtime.device import set_block_size as set_block_size
    from videoprism_mlx.tokenizers import canonicalize_text as canonicalize_text
    from videoprism_mlx.tokenizers import tokenize_texts as tokenize_texts
    from videoprism_mlx.training.classifier import train_classifier as train_classifier
    from videoprism_mlx.training.probe import evaluate_probe as evaluate_probe
    from videoprism_mlx.training.recipe import Recipe as Recipe
    from videoprism_mlx.training.retrieval import Tuning as Tuning
    from videoprism_mlx.training.retrieval import train_retrieval as train_retrieval
    from videoprism_mlx.video.ffmpeg.decoding import Decoding as Decoding
    from videoprism_mlx.video.ffmpeg.describe import describe_video as describe_video
    from videoprism_mlx.video.find import find_videos as find_videos
    from videoprism_mlx.video.sampling import read_video as read_video
    from videoprism_mlx.weights.adapters import add_adapters as add_adapters
    from videoprism_mlx.weights.adapters import fuse_adapters as fuse_adapters
    from videoprism_mlx.weights.adapters import load_adapters as load_adapters
    from videoprism_mlx.weights.adapters import save_adapters as save_adapters
    from videoprism_mlx.weights.catalogue import list_models as list_models
    from videoprism_mlx.weights.directory import save_model as save_model
    from videoprism_mlx.weights.loading import load_classifier as load_classifier
    from videoprism_mlx.weights.loading import load_model as load_model
    from videoprism_mlx.weights.loading import load_video_encoder as load_video_encoder
    from videoprism_mlx.weights.quantize.model import dequantize as dequantize
    from videoprism_mlx.weights.quantize.model import quantize as quantize

# Where the public names live. They are imported when first used, so that a script pays for what
# it needs, and `videoprism-mlx --help` for next to nothing.
_HOMES = {
    "datasets.captions": ["read_captions"],
    "datasets.labels": ["read_labels"],
    "encoders": [
        "FactorizedEncoder",
        "FactorizedVideoCLIP",
        "FactorizedVideoClassifier",
        "TextEncoder",
    ],
    "errors": ["CheckpointError", "VideoError", "VideoPrismError"],
    "evaluation.protocols": ["evaluate_classifier", "evaluate_retrieval", "evaluate_zero_shot"],
    "features.compare": ["classify", "compare"],
    "features.embed": ["embed"],
    "features.encode": ["encode"],
    "features.processor": ["Processor", "load"],
    "features.text": ["embed_texts", "probabilities"],
    "features.text.store": ["save_text_embeddings"],
    "features.timeline": ["video_peaks"],
    "features.tokenizer": ["load_text_tokenizer"],
    "features.windows": ["encode_windows"],
    "hub.cache": ["cache_contents", "prune_cache"],
    "hub.upload": ["upload"],
    "library.filters": ["Where"],
    "library.library": ["Library"],
    "models": ["get_model", "has_model"],
    "runtime.device": ["set_block_size"],
    "tokenizers": ["canonicalize_text", "tokenize_texts"],
    "training.classifier": ["train_classifier"],
    "training.probe": ["evaluate_probe"],
    "training.recipe": ["Recipe"],
    "training.retrieval": ["Tuning", "train_retrieval"],
    "video.ffmpeg.decoding": ["Decoding"],
    "video.ffmpeg.describe": ["describe_video"],
    "video.find": ["find_videos"],
    "video.sampling": ["read_video"],
    "weights.adapters": ["add_adapters", "fuse_adapters", "load_adapters", "save_adapters"],
    "weights.catalogue": ["list_models"],
    "weights.directory": ["save_model"],
    "weights.loading": ["load_classifier", "load_model", "load_video_encoder"],
    "weights.quantize.model": ["dequantize", "quantize"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

# Modules and rooms that `vp.NAME` gives without an import of their own.
_MODULES = {"convert", "mteb", *(home.partition(".")[0] for home in _HOMES)}

__all__ = sorted(["convert", "mteb", *_HOME_OF])


if not TYPE_CHECKING:  # To a type checker it would say that every name exists, with any type.

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        if name == "__version__":
            value = import_module(f"{__name__}.files.record").own_version()
        elif name in _HOME_OF:
            value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__
