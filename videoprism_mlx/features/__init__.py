"""Videos and texts to features, in memory and in files."""
