"""Building blocks that several systems use."""
