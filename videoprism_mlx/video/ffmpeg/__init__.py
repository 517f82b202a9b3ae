"""One video file, read through FFmpeg (PyAV)."""
