"""Features, similarity and training as pictures."""
