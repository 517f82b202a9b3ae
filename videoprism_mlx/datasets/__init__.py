"""Lists of videos with captions or labels."""
