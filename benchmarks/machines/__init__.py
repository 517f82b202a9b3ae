"""Many machines, on one: hosts in network namespaces, and what is measured on them."""
