"""Videos to rows of a library: what is new, reading it, and writing it so that nothing is lost."""
