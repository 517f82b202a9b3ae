"""Files that some ranks have and others lack, where the ranks have no common disk.

Shapes: R ranks, F files.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from videoprism_mlx.files.atomic import new_file
from videoprism_mlx.ranks.group import PIECE, Group

# How many files may be open at a time.
MOST = 64

Flags = npt.NDArray[np.bool_]


def have(group: Group, paths: Sequence[Path]) -> Flags:
    """Which rank has which file: (R, F)."""
    found = np.array([path.exists() for path in paths], np.bool_)
    return group.gather(found[None])


def complete(group: Group, paths: Sequence[Path], check: Callable[[Path], object]) -> None:
    """Gives each rank the files that it lacks, if another has them. `paths` are the files here.

    `check` raises an error if a file is damaged: others must not get it, and return it later.
    """
    if group.size == 1 or not len(paths):
        return
    there = have(group, paths)
    wanted = np.flatnonzero(there.any(axis=0) & ~there.all(axis=0))
    if not len(wanted):
        return
    owners = there.argmax(axis=0)[wanted]
    files = [paths[number] for number in wanted.tolist()]
    own = [owner == group.rank for owner in owners]
    for path in itertools.compress(files, own):
        check(path)
    lacking = [not there[group.rank, number] for number in wanted]
    sizes = np.array(
        [path.stat().st_size if mine else 0 for path, mine in zip(files, own, strict=True)]
    )
    sizes = group.gather(sizes[None].astype(np.int64)).sum(axis=0)
    for pack in packs(sizes.tolist()):
        send(group, [(files[n], own[n], lacking[n], int(sizes[n])) for n in pack])


def packs(sizes: Sequence[int]) -> Iterator[list[int]]:
    """The numbers of files, in packs of up to MOST files and PIECE bytes, or of one file."""
    pack: list[int] = []
    room = PIECE
    for number, size in enumerate(sizes):
        if pack and (size > room or len(pack) == MOST):
            yield pack
            pack, room = [], PIECE
        pack.append(number)
        room -= size
    if pack:
        yield pack


def send(group: Group, pack: Sequence[tuple[Path, bool, bool, int]]) -> None:
    """Sends files to all ranks, which write those that they lack.

    Of each: its path, whether this rank sends it, whether it lacks it, and its size.
    """
    with ExitStack() as stack:
        opened: list[Any] = []
        for path, is_own, is_lacking, _ in pack:
            if is_own:
                opened.append(stack.enter_context(open(path, "rb")))
            elif is_lacking:
                partial = stack.enter_context(new_file(path, replace=True))
                opened.append(stack.enter_context(open(partial, "wb")))
            else:
                opened.append(None)
        total = sum(size for *_, size in pack)
        # More than one piece is of one file: see `packs`.
        for first in range(0, total, PIECE):
            sizes = [min(size - first, PIECE) for *_, size in pack]
            pieces = [
                file.read(size) if is_own else bytes(size)
                for file, (_, is_own, _, _), size in zip(opened, pack, sizes, strict=True)
            ]
            sent = mx.array(np.frombuffer(b"".join(pieces), np.uint8))
            found = np.array(group.all_sum(sent))
            start = 0
            for file, (_, is_own, is_lacking, _), size in zip(opened, pack, sizes, strict=True):
                if is_lacking and not is_own:
                    file.write(found[start : start + size].tobytes())
                start += size
