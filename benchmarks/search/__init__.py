"""How well and how fast a library is searched."""
