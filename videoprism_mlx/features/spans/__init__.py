"""Long videos in spans of windows, which several workers share."""
