"""Model directories: reading, writing, downloading, adapters."""
