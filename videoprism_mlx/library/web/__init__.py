"""The page of a library: a server on this machine, and what it sends to the browser."""
