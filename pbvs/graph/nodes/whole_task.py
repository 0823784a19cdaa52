"""A whole task as a node in another task's graph.

It gives what that task would write: whole numbers 0..255, so that running the chain equals running the
inner task, and the rest on its files.
"""

from __future__ import annotations

from pbvs.core.config import Config
from pbvs.graph.node import NodeKind


class WholeTaskParams(Config):
    """The task to run."""

    task: str


WHOLE_TASK = NodeKind(
    WholeTaskParams,
    (1, 1),
    None,  # the graph asks the set of tasks
    lambda params, context: context.translator(params.task),
)
