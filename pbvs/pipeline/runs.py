"""Where trained nodes lie: `RUNS/<task>/<node>/`, and how one is found and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from pbvs.core.errors import CheckpointError, UsageError
from pbvs.graph.task_set import TaskSet
from pbvs.training import checkpoint

BEST = "best"
_PLAIN = ":plain"
_FILES = {BEST: checkpoint.BEST, "last": checkpoint.LAST}


@dataclass(frozen=True)
class Runs:
    """A folder of training runs, or one checkpoint given by hand that stands for one task's node.

    Attributes:
        folder: holds `<task>/<node>/`.
        elsewhere: run folders of tasks that do not lie there; they hold `<node>/`.
        given: weights (a file, or a node's or task's run folder) to use in place of a run's.
        given_for: the task and node that `given` is for.
    """

    folder: Path
    elsewhere: Mapping[str, Path] = field(default_factory=dict)
    given: Path | None = None
    given_for: tuple[str, str] | None = None

    def node_folder(self, task: str, node: str) -> Path:
        """The run folder of one node of one task."""
        return self.elsewhere.get(task, self.folder / task) / node

    def weights_file(self, task: str, node: str, which: str = BEST) -> Path:
        """The weights to use for a node: `best` or `last` of its run, or of what was given; else a file.

        `:unwrap` behind it asks for the network itself where a moving average was kept; the file is the same.
        """
        which = which.removesuffix(_PLAIN)
        if which not in _FILES:
            return Path(which)
        if self.given is None or self.given_for != (task, node):
            return self.node_folder(task, node) / _FILES[which]
        if self.given.is_file():
            return self.given
        inside = [self.given / _FILES[which], self.given / node / _FILES[which]]
        return next((path for path in inside if path.is_file()), inside[0])

    def load(
        self, task: str, node: str, network: str, which: str = BEST
    ) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
        """Header and state dict of a node's trained network (`G` or `D`).

        Raises:
            CheckpointError: not trained yet, torn, or the weights of another task or node.
        """
        path = self.weights_file(task, node, which)
        if not path.is_file():
            raise CheckpointError(
                f"{task} has no trained weights for its node {node}",
                where=path,
                next_step=f"`pbvs train {task} --data PREPARED`, or name them with --checkpoint",
            )
        header, state = checkpoint.load_weights(path, network, unwrap=which.endswith(_PLAIN))
        if (header["task"], header["node"]) != (task, node):
            raise CheckpointError(
                f"the checkpoint belongs to {header['task']}.{header['node']}, not to {task}.{node}",
                where=path,
                next_step=f"give a checkpoint of {task}",
            )
        return header, state


def runs_with(book: TaskSet, task: str, folder: Path, given: Path | None) -> Runs:
    """The runs in `folder`; with `given`, that checkpoint for the one trained node that `task` goes through.

    Raises:
        UsageError: `given` does not exist, or `task` goes through no trained node, or through several.
    """
    if given is None:
        return Runs(folder)
    if not given.exists():
        raise UsageError("there is no such checkpoint", where=given)
    tasks = [task, *book.embedded(book.spec(task))]
    nodes = [(name, node.name) for name in tasks for node in book.graph(name).trainable]
    if len(nodes) != 1:
        raise UsageError(
            f"{task} goes through {len(nodes)} trained nodes, so one checkpoint cannot be meant for it",
            where="--checkpoint",
            next_step="leave it out, and name the folder of runs with --runs",
        )
    return Runs(folder, given=given, given_for=nodes[0])
