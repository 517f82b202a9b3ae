"""Several processes, perhaps on several machines, that train or measure one model together.

`mlx.launch` starts them. Each is a rank of a `Group`; in any other process, `current()` is a group
of one, with which everything here does nothing.
"""
