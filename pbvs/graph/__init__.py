"""Task files, typed specs, and graphs that are checked before they run."""
