"""Whether this installation computes what the official model computes, and on what machine."""
