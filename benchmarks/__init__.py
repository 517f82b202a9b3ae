"""Speed and memory. Each module runs as `python -m benchmarks.NAME` and measures ratios."""

import videoprism_mlx  # noqa: F401 - it must be imported before MLX on Linux.
