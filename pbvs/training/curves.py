"""The curves of a run: CSV files that a resumed run continues exactly, and TensorBoard beside them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

from pbvs.files import write_csv


class Curve:
    """One CSV file with a column `images` (seen so far) and one column a value.

    Opening it drops the rows after `images_seen`: what a killed run wrote after its last checkpoint will
    be written again.
    """

    def __init__(self, path: Path, images_seen: int):
        self.path = path
        self.rows: list[dict[str, str]] = []
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as stream:
                self.rows = [row for row in csv.DictReader(stream) if int(row["images"]) <= images_seen]
            self._write()

    def add(self, images_seen: int, values: Mapping[str, float]) -> None:
        """Appends one row and writes the file anew, whole."""
        self.rows.append({"images": str(images_seen), **{k: f"{v:.6g}" for k, v in values.items()}})
        self._write()

    def _write(self) -> None:
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        write_csv(self.path, columns, [[row.get(key, "") for key in columns] for row in self.rows])


class Curves:
    """The two curves of a run, training terms and validation scores, in both forms."""

    def __init__(self, folder: Path, images_seen: int):
        self.training = Curve(folder / "curves.csv", images_seen)
        self.validation = Curve(folder / "validation.csv", images_seen)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=images_seen or None)

    def __enter__(self) -> Curves:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._board.close()

    def add(self, group: str, images_seen: int, values: Mapping[str, float]) -> None:
        """Adds one point to every curve of `group`, `training` or `validation`."""
        (self.training if group == "training" else self.validation).add(images_seen, values)
        for name, value in values.items():
            self._board.add_scalar(f"{group}/{name}", value, images_seen)
