"""From a video file to frames. Nothing in here imports MLX."""
