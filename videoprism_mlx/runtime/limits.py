"""Limits that the readers of video and the models share."""

# Frames are expected in [0, 1]. Resampling overshoots and normalised frames pass; 0-255 does not.
PIXEL_LIMIT = 10.0
