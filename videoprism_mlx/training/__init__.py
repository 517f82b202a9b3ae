"""Training a classifier or a video-text model."""
