"""Commands that `mlx.launch` has started several times."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from videoprism_mlx.errors import EXPECTED, ElsewhereError, InputError, RankError, in_words
from videoprism_mlx.ranks.launched import launched_rank

# The commands that share their work.
SHARING = ("train", "evaluate")


@contextmanager
def taking_part(options: argparse.Namespace) -> Iterator[bool]:
    """Lets a command share its work with the other ranks. Only the first rank prints the result.

    Yields whether this is the first rank, whose exit code is the command's: the launcher ends all
    when one is not 0. Raises InputError if a launcher has started a command that cannot share. One
    rank tells an error that several have, and it says which rank it is unless it is the first.
    """
    rank = launched_rank()
    if rank is None or options.command is None:
        yield True
        return
    if options.command not in SHARING:
        if rank:
            raise ElsewhereError(f"rank 0 says why {options.command} has ended")
        raise InputError(
            f"{options.command} was started as several ranks, and would do everything several "
            f"times; only {' and '.join(SHARING)} share their work like this. Start it without "
            "mlx.launch; for many videos, index and embed have --workers and --scheduler"
        )
    from videoprism_mlx.ranks.group import ALONE
    from videoprism_mlx.ranks.joining import joined

    group = ALONE
    try:
        with joined() as group, open(os.devnull, "w") as nowhere:
            if group.is_first:
                yield True
            else:
                with redirect_stdout(nowhere):
                    yield False
    except ElsewhereError:
        raise
    except EXPECTED as error:
        if group.is_first:
            raise
        raise RankError(f"{group.name(group.rank)}: {in_words(error)}") from error
