"""The feature networks shared by losses and scores, and their weights."""
