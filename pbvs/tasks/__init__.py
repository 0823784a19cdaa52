"""Task files, the graphs made of them, and the steps that a run goes through."""
