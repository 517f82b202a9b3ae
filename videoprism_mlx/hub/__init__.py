"""Sharing on the Hugging Face Hub, and what is kept on this machine."""
