"""Writing files safely, locking them, telling them apart, and recording how they were made."""
