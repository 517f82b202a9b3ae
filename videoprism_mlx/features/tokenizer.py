"""The tokenizer of a model, by the model's name."""

from pathlib import Path

from videoprism_mlx import tokenizers
from videoprism_mlx.errors import DownloadError, InputError, NotFoundError, suggestion
from videoprism_mlx.features.processor import processor_for
from videoprism_mlx.files.places import user_path
from videoprism_mlx.models import RELEASES, SHIPPED, build, canonical_name, get_config, known_names
from videoprism_mlx.tokenizers import TOKENIZER_FILE, TOKENIZER_URLS, SentencePieceTokenizer
from videoprism_mlx.weights import hub
from videoprism_mlx.weights.loading import model_outline, repository_of


def load_text_tokenizer(name: str | Path, revision: str | None = None) -> SentencePieceTokenizer:
    """The tokenizer of a model, by the model's name, Hub id or directory.

    `name` may also be the tokenizer's own name, `c4_en`, a SentencePiece `.model` file, or the Hub
    id of a repository with a sentencepiece.model and no model. `revision` is a branch, tag or
    commit on the Hub. No weights are downloaded.
    """
    text, revision = hub.split_revision(name, revision)
    path = user_path(text)
    known = canonical_name(text)
    has_file = path.is_file() or (path / TOKENIZER_FILE).is_file()
    if text in TOKENIZER_URLS or (known is None and has_file):
        return tokenizers.load_text_tokenizer(text if text in TOKENIZER_URLS else path)
    repository = repository_of(text)
    if known is None and not path.is_dir() and repository is None:
        names = [*TOKENIZER_URLS, *known_names()]
        raise NotFoundError(
            f"no tokenizer and no model is called {text!r}, and there is no such file"
            f"{suggestion(text, names)}. Expected {' or '.join(TOKENIZER_URLS)}, a model's name, "
            "Hub id or directory, or the path of a SentencePiece .model file"
        )
    if known is None or known in RELEASES or known in SHIPPED:
        try:
            model, directory = model_outline(text, revision)
        except InputError:
            if not path.is_dir():
                raise
            # A directory that holds no model either.
            return tokenizers.load_text_tokenizer(path)
        except DownloadError as error:
            if repository is None or not error.is_missing_file:
                raise
            where = f"{repository}@{revision}" if revision else repository
            return tokenizers.load_text_tokenizer(hub.tokenizer_file(where))
    else:
        model, directory = build(get_config(known)), None
    if not model.takes_text:
        raise InputError(
            f"{name} takes no text and has no tokenizer; expected a video-text model "
            "(videoprism_lvt_*)"
        )
    processor = processor_for(model, directory)
    if processor.tokenizer is None and directory is not None:
        return tokenizers.load_text_tokenizer(directory)  # It says what is missing.
    return processor.load_tokenizer()
