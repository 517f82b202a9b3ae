"""The hosts: namespaces on one machine, their network, and Dask on them."""
