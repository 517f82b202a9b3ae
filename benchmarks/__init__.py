"""Speed and memory. Each module is run as `python -m benchmarks.NAME` and measures ratios."""

import videoprism_mlx  # noqa: F401 - before MLX, on Linux.
