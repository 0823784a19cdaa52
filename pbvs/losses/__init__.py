"""Loss terms that several systems use."""
