"""A searchable collection of videos: indexed once, searched by words, pictures and clips."""

import os

# Else LanceDB writes to stderr what concerns those who develop it.
os.environ.setdefault("LANCEDB_LOG", "error")
