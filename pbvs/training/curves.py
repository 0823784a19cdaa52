"""The curves of a run, as CSV files that a resumed run continues exactly and for TensorBoard."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from pbvs.core.files import write_csv

GROUPS = {"training": "curves.csv", "validation": "validation.csv", "times": "times.csv"}


class Curve:
    """One CSV file with a column `images` (seen so far) and one column per value.

    Opening it drops the rows after `images_seen` and a truncated last row: what a killed run wrote after its
    last checkpoint is written again. Rows are appended; only a new column rewrites the file.
    """

    def __init__(self, path: Path, images_seen: int):
        self.path = path
        self.columns: list[str] = []
        rows = [row for row in self._rows() if int(row["images"]) <= images_seen]
        if rows:
            self._rewrite(list(rows[0]), rows)
        else:
            path.unlink(missing_ok=True)

    def add(self, images_seen: int, values: Mapping[str, float]) -> None:
        """Appends one row, and flushes it."""
        row = {"images": str(images_seen), **{k: f"{v:.6g}" for k, v in values.items()}}
        if new := [name for name in row if name not in self.columns]:
            self._rewrite([*self.columns, *new], self._rows())
        with self.path.open("a", newline="", encoding="utf-8") as stream:
            csv.DictWriter(stream, self.columns, restval="", lineterminator="\n").writerow(row)

    def _rows(self) -> list[dict[str, str]]:
        if not self.path.is_file():
            return []
        complete = self.path.read_text(encoding="utf-8").rpartition("\n")[0]
        return list(csv.DictReader(complete.splitlines()))

    def _rewrite(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        self.columns = columns
        write_csv(self.path, columns, [[row.get(key) or "" for key in columns] for row in rows])


class Curves:
    """The curves of a run in both forms: training losses, validation scores with pictures, and times.

    Args:
        folder: of the run.
        kept: the last row to keep of a group, in images, where that is not `images_seen`.
        images_seen: of the run so far.
    """

    def __init__(self, folder: Path, kept: Mapping[str, int], images_seen: int):
        self._csv = {
            group: Curve(folder / name, kept.get(group, images_seen)) for group, name in GROUPS.items()
        }
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=images_seen or None)

    def __enter__(self) -> Curves:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._board.close()

    def add(self, group: str, images_seen: int, values: Mapping[str, float]) -> None:
        """Adds one point to every curve of `group`, one of `GROUPS`."""
        self._csv[group].add(images_seen, values)
        for name, value in values.items():
            self._board.add_scalar(f"{group}/{name}", value, images_seen)

    def add_picture(self, images_seen: int, picture: NDArray[np.uint8]) -> None:
        """Adds a picture `H,W,3` to TensorBoard."""
        self._board.add_image("validation/samples", picture, images_seen, dataformats="HWC")
