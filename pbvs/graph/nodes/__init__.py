"""The untrained nodes that a graph may use, one file per kind."""
