"""Completion of commands and options by the shell, with argcomplete."""

import argparse
import os
from typing import Any

# As in `models.parse_dtype`, which imports MLX.
DTYPES = ("float32", "bfloat16", "float16")


def complete(parser: argparse.ArgumentParser) -> None:
    """Answers the shell and ends, if it is the shell that has started the program."""
    if "_ARGCOMPLETE" not in os.environ:
        return
    try:
        import argcomplete
    except ImportError:
        raise SystemExit(1) from None
    argcomplete.autocomplete(parser)


def dtypes(**_: Any) -> tuple[str, ...]:
    """What may follow --dtype."""
    return DTYPES


def models(prefix: str, **_: Any) -> list[str]:
    """What may follow --model: the names of the models that have weights, and directories."""
    from argcomplete.completers import DirectoriesCompleter

    from videoprism_mlx.models import RELEASES, SHIPPED

    return [*RELEASES, *SHIPPED, *DirectoriesCompleter()(prefix)]


def models_and_files(prefix: str, **_: Any) -> list[str]:
    """What may be described: the names of all models, and files and directories."""
    from argcomplete.completers import FilesCompleter

    from videoprism_mlx.models import CONFIGS

    return [*CONFIGS, *FilesCompleter()(prefix)]
