"""The training loop, what it optimises, and what survives a restart."""
