"""Many processes and machines: videos as tasks of Dask's workers."""
