"""Whether a launcher has started this process as one of several. It imports no MLX."""

import os
from pathlib import Path

# The variables in which launchers say which rank a process is, and of how many: `mlx.launch`, Open
# MPI, and MPICH.
RANKS = ("MLX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
SIZES = ("MLX_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")

# The file with the addresses of the ring of `mlx.launch`.
RING = "MLX_HOSTFILE"


def launched_rank() -> int | None:
    """The number of this process if a launcher has started several, and else None."""
    ranks = [os.environ[name] for name in RANKS if os.environ.get(name, "").isdecimal()]
    return int(ranks[0]) if ranks and _are_several() else None


def _are_several() -> bool:
    """Whether there is more than one process. It is True if the launcher does not say so."""
    if RING in os.environ:  # With one process, `mlx.launch` leaves the file empty.
        path = Path(os.environ[RING])
        return not path.is_file() or bool(path.read_text().strip())
    sizes = [os.environ[name] for name in SIZES if name in os.environ]
    return sizes[:1] != ["1"]
