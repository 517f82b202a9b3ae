"""How anything is written, locked, told apart, and described."""
