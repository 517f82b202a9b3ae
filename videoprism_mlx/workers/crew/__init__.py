"""Running tasks on workers: those that come, are slow, are refused, or die."""
