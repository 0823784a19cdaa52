"""What a run is: one record, written to `run.json` before work starts and into every weights file.

Needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pbvs.core.errors import CheckpointError
from pbvs.core.files import write_json

SCHEMA = 2
RECORD = "run.json"


@dataclass(frozen=True)
class RunRecord:
    """One trained node: what it is, what it was trained on, and how far.

    Attributes:
        system, version: what `pbvs.systems.registry` calls it, and the version its weights were begun with.
        task, node: whose weights these are.
        size_px: height and width of the node's image, at which it was trained.
        bands: of each view by name, `source` and `target` among them.
        config: the node's settings that decide its weights, JSON-like.
        settings: the whole task, resolved, JSON-like.
        provenance: each thing that decides the weights, to that thing's fingerprint or version.
        data: name of the prepared folder.
        uint16, uint16_percent, stretches: how 16-bit images became 8-bit, see `PreparedData.sixteen_bits`;
            inputs to translate need the same.
        metric_weights, disclaimer: the kind of the metrics' weights, and what must be said of stand-ins.
        versions: of the software that began the run.
        images_seen, best_score: of these weights; 0 and None in `run.json`.
    """

    system: str
    version: int
    task: str
    node: str
    size_px: tuple[int, int]
    bands: dict[str, int]
    config: dict[str, Any]
    settings: dict[str, Any]
    provenance: dict[str, str]
    data: str
    uint16: str | None
    uint16_percent: list[float] | None
    stretches: dict[str, list[float]]
    metric_weights: str
    disclaimer: str | None
    versions: dict[str, str]
    images_seen: int = 0
    best_score: float | None = None
    schema: int = SCHEMA

    def at(self, images_seen: int, best_score: float | None) -> RunRecord:
        """The record of weights after so many images."""
        return replace(self, images_seen=images_seen, best_score=best_score)

    def write(self, folder: Path) -> None:
        """Writes `run.json`, whole or not at all."""
        write_json(folder / RECORD, asdict(self))

    def to_json(self) -> str:
        """For the header of a weights file."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], where: Path) -> RunRecord:
        """The record of `run.json` or of a weights file, also as pbvs 0.1.0 wrote it.

        Raises:
            CheckpointError: it is of a later version of pbvs, or not such a record.
        """
        try:
            if raw.get("schema", 1) == 1 and "provenance" not in raw:
                raw = _from_0_1_0(raw)
            if raw.get("schema", SCHEMA) != SCHEMA:
                raise TypeError(f"its schema is {raw['schema']}, not {SCHEMA}")
            record = cls(**raw)
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"the run's record is of another version of pbvs: {error}",
                where=where,
                next_step="use the version that wrote it, or start over with --fresh",
            ) from error
        return replace(record, size_px=(int(record.size_px[0]), int(record.size_px[1])))

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """The record in a run folder.

        Raises:
            CheckpointError: see `from_dict`.
        """
        path = folder / RECORD
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8")), path)


OLD_CODE = "code of 0.1.0"  # stands in a record's provenance for the hash of source text that 0.1.0 kept
_OLD_PROVENANCE = {
    "first weights": "init weights",
    "judges' weights": "metric weights",
    "code": OLD_CODE,
}


def _from_0_1_0(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A record or header of pbvs 0.1.0, which knew one system, in today's form."""
    settings = raw.get("task", {}) if isinstance(raw.get("task"), dict) else {}
    node = raw["node"]
    old_config = raw.get("params") or {
        key: value
        for key, value in settings["nodes"][node].items()
        if key not in ("use", "inputs", "inference")
    }
    return {
        "system": "pix2pixhd",
        "version": 1,
        "task": settings["task"] if settings else raw["task"],
        "node": node,
        "size_px": raw["size_px"],
        "bands": {"source": raw["bands"][0], "target": raw["bands"][1]},
        "config": pix2pixhd_config_from_0_1_0(old_config),
        "settings": settings,
        "provenance": {_OLD_PROVENANCE.get(key, key): value for key, value in raw["made_of"].items()},
        "data": raw.get("prepared", ""),
        "uint16": raw.get("uint16"),
        "uint16_percent": raw.get("uint16_percent"),
        "stretches": raw.get("stretches", {}),
        "metric_weights": raw["weights"],
        "disclaimer": raw["marked"],
        "versions": raw.get("versions", {"pbvs": "0.1.0"}),
        "images_seen": raw.get("images_seen", 0),
        "best_score": raw.get("best_score"),
    }


# Keys of a trained node in task files of 0.1.0, and what they are called now.
RENAMED_KEYS = {
    "first_weights": "init_from",
    "generator.downsamplings": "generator.n_downsample",
    "generator.enhancers": "generator.local_enhancers",
    "training.pool_size": "pool_size",
    "training.fix_global_epochs": "fix_global_epochs",
    "training.checkpointing": "training.activation_checkpointing",
    "inference.turns": "inference.tta",
}


def pix2pixhd_config_from_0_1_0(old: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a Pix2PixHD node as 0.1.0 wrote them, under today's keys."""
    config = json.loads(json.dumps(old))
    for before, now in RENAMED_KEYS.items():
        *tables, key = before.split(".")
        table: Any = config
        for name in tables:
            table = table.get(name) or {}
        if key not in table:
            continue
        value = table.pop(key)
        *tables, key = now.split(".")
        table = config
        for name in tables:
            table = table.setdefault(name, {})
        table[key] = value
    return dict(config)
