"""The nodes that a task's graph may name, one file a kind; `registry` lists them."""
