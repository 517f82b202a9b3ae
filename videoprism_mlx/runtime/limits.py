"""Limits that the readers of video and the models share."""

# The largest absolute value of a pixel. Frames are expected in [0, 1]. Values that resampling or
# normalization moves out of this range are accepted; pixels from 0 to 255 are refused.
PIXEL_LIMIT = 10.0
