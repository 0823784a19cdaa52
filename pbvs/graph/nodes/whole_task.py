"""A whole task standing as a node in another task's graph.

It gives what that task would write: whole numbers 0..255, so that running the chain equals running the
inner task, and the rest on its files.
"""

from __future__ import annotations

from pbvs.graph.node import NodeContext, NodeKind, Operator, Params


class WholeTaskParams(Params):
    """The task to run."""

    task: str


def _prepare(params: WholeTaskParams, around: NodeContext) -> Operator:
    translate = around.translator(params.task)
    return lambda images: translate(images)


def _bands(params: WholeTaskParams, bands: list[int], target: int) -> int:
    # Only the book of tasks knows another task's bands; the graph asks it.
    raise AssertionError("the graph resolves the bands of a whole task")


WHOLE_TASK = NodeKind(WholeTaskParams, (1, 1), _bands, _prepare)
