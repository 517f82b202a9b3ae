"""The features of many videos, computed here or on workers, and where they go."""
