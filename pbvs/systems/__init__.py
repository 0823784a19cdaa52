"""One folder per trainable system, and the registry."""
