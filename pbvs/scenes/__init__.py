"""Synthetic scenes in the archives' layout, for the demo and the tests."""
