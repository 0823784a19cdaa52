"""Where trained nodes lie: `RUNS/<task>/<node>/`, and how one is found and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pbvs.core.errors import CheckpointError, UsageError
from pbvs.graph.task_set import TaskSet

if TYPE_CHECKING:
    from torch import Tensor

    from pbvs.training.run_record import RunRecord

BEST, LAST = "best", "last"
_UNAVERAGED = ":plain"


@dataclass(frozen=True)
class Runs:
    """A folder of training runs, or one checkpoint named by the user that stands for one task's node.

    Attributes:
        folder: holds `<task>/<node>/`.
        elsewhere: run folders of tasks that do not lie there; they hold `<node>/`.
        checkpoint_override: weights (a file, or a node's or task's run folder) to use in place of a run's.
        override_for: the task and node that `checkpoint_override` is for.
    """

    folder: Path
    elsewhere: Mapping[str, Path] = field(default_factory=dict)
    checkpoint_override: Path | None = None
    override_for: tuple[str, str] | None = None

    def node_folder(self, task: str, node: str) -> Path:
        """The run folder of one node of one task."""
        return self.elsewhere.get(task, self.folder / task) / node

    def weights_file(self, task: str, node: str, which: str = BEST, *, validated: bool = False) -> Path:
        """The weights to use for a node: `best` or `last` of its run, or a file.

        A run that was not validated yet has only `last`, which then stands for `best` too, unless `validated`
        is asked for; the number of images it comes from is in its record. `:plain` at the end asks for the
        network itself where a moving average was kept; the file is the same.
        """
        which = which.removesuffix(_UNAVERAGED)
        if which not in (BEST, LAST):
            return Path(which)
        folders = [self.node_folder(task, node)]
        if self.checkpoint_override is not None and self.override_for == (task, node):
            if self.checkpoint_override.is_file():
                return self.checkpoint_override
            folders = [self.checkpoint_override, self.checkpoint_override / node]
        names = [which] if validated or which == LAST else [BEST, LAST]
        files = [folder / f"{name}.safetensors" for name in names for folder in folders]
        return next((path for path in files if path.is_file()), files[0])

    def load(self, task: str, node: str, which: str = BEST) -> tuple[RunRecord, dict[str, dict[str, Tensor]]]:
        """Record and state dicts, by network, of a trained node.

        Raises:
            CheckpointError: not trained yet, corrupt, or the weights of another task or node.
        """
        from pbvs.training.checkpoint import load_weights

        path = self.weights_file(task, node, which)
        if not path.is_file():
            raise CheckpointError(
                f"{task} has no trained weights for its node {node}",
                where=path,
                next_step=f"`pbvs train {task} --data PREPARED`, or name them with --checkpoint",
            )
        record, states = load_weights(path, unaveraged=which.endswith(_UNAVERAGED))
        if (record.task, record.node) != (task, node):
            raise CheckpointError(
                f"the checkpoint belongs to {record.task}.{record.node}, not to {task}.{node}",
                where=path,
                next_step=f"name a checkpoint of {task}",
            )
        return record, states


def runs_with(tasks: TaskSet, task: str, folder: Path, checkpoint: Path | None) -> Runs:
    """The runs in `folder`; a `checkpoint` stands for the one trained node that `task` goes through.

    Raises:
        UsageError: the checkpoint does not exist, or `task` goes through no trained node, or through several.
    """
    if checkpoint is None:
        return Runs(folder)
    if not checkpoint.exists():
        raise UsageError("there is no such checkpoint", where=checkpoint)
    names = [task, *tasks.embedded(tasks.spec(task))]
    nodes = [(name, node.name) for name in names for node in tasks.graph(name).trained]
    if len(nodes) != 1:
        raise UsageError(
            f"{task} goes through {len(nodes)} trained nodes, so one checkpoint cannot stand for them",
            where="--checkpoint",
            next_step="leave it out, and name the folder of runs with --runs",
        )
    return Runs(folder, checkpoint_override=checkpoint, override_for=nodes[0])
