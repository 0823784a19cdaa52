"""The feature networks that losses and scores share, and their weights."""
