"""The terms of the training losses, one file a kind, and their weighted sum in `total`."""
