"""A drawn world, the small model that knows it, and a page that shows a search."""
