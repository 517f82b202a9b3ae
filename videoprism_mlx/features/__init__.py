"""From videos and texts to features."""
