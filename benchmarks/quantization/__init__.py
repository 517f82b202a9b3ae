"""What quantization saves and what it costs: size, memory, time and quality."""

import videoprism_mlx  # noqa: F401 - it must be imported before MLX on Linux.
