"""Task files as typed, closed specs; every problem of a file is reported at once, with its key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator

from pbvs.archives.layouts import Family, Modality
from pbvs.core.config import Config
from pbvs.core.errors import TaskError, did_you_mean
from pbvs.graph.node import NodeKind
from pbvs.graph.node_kinds import RENAMED, find_kind, known_kinds
from pbvs.graph.task_files import apply_override, read_toml
from pbvs.prepare.stretch import PERCENT, Percent, Uint16Rule
from pbvs.systems.config import SizePx, TrainedConfig
from pbvs.systems.registry import SystemRecord, system_named
from pbvs.training.run_record import RENAMED_KEYS


class DataRules(Config):
    """How pairs are made of the captures of a location."""

    pairing: Literal["random", "same_capture", "nearest_time"] = "random"
    draws_per_location: int = Field(default=1, ge=1, description="pairs drawn from a location each epoch")
    heldout_fraction: float = Field(default=0.05, ge=0, lt=1, description="of the locations, for validation")
    validate_images: int = Field(
        default=60, ge=0, description="most held-out pairs scored each time; 0: none"
    )
    min_overlap: float = Field(default=0.5, ge=0, le=1, description="of the two images, else no pair")
    uint16: Uint16Rule = Field(default="full", description="how 16 bits become 8, see pbvs.prepare.stretch")
    uint16_percent: Percent = Field(default=PERCENT, description="low and high, of the percentile rules")
    register_sar: bool = Field(default=False, description="whether SAR is moved onto its optical image")

    @field_validator("uint16_percent")
    @classmethod
    def _in_order(cls, percent: Percent) -> Percent:
        if not 0.0 <= percent[0] < percent[1] <= 100.0:
            raise ValueError(f"must be 0 <= low < high <= 100, not {percent[0]:g} and {percent[1]:g}")
        return percent


class _TaskHead(Config):
    """A task file without its nodes, which have models of their own."""

    task: str
    source: Modality
    target: Modality
    size_px: SizePx
    output: str
    data: DataRules = DataRules()


class _NodeHead(Config):
    use: str
    inputs: tuple[str, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Node:
    """One node: its name, the kind it uses, the names of its inputs, and its settings."""

    name: str
    use: str
    inputs: tuple[str, ...]
    params: Config

    @property
    def kind(self) -> NodeKind:
        """The kind it uses."""
        kind = find_kind(self.use)
        assert kind is not None, self.use
        return kind

    @property
    def trained(self) -> bool:
        """Whether the node has weights of its own to train."""
        return isinstance(self.params, TrainedConfig)

    @property
    def config(self) -> TrainedConfig:
        """The settings of a trained node."""
        assert isinstance(self.params, TrainedConfig), self.name
        return self.params

    @property
    def system(self) -> SystemRecord:
        """The system of a trained node."""
        return system_named(self.use)


@dataclass(frozen=True)
class TaskSpec:
    """One task as its file has it; `size_px` is (height, width) of what it writes."""

    task: str
    source: Modality
    target: Modality
    size_px: tuple[int, int]
    output: str
    data: DataRules
    nodes: dict[str, Node]
    file: Path

    @property
    def family(self) -> Family:
        """The data family its training pairs come from: EO exists only in the EO/SAR tiles."""
        return "eo_sar" if "eo" in (self.source, self.target) else "stack"

    def resolved(self) -> dict[str, Any]:
        """Every setting with its value, defaults included, JSON-like."""
        return {
            "task": self.task,
            "source": self.source,
            "target": self.target,
            "size_px": list(self.size_px),
            "output": self.output,
            "data": self.data.model_dump(mode="json"),
            "nodes": {
                n.name: {"use": n.use, "inputs": list(n.inputs), **n.params.model_dump(mode="json")}
                for n in self.nodes.values()
            },
        }


@dataclass
class Problems:
    """What is wrong with one task file, collected until `raise_any`."""

    file: Path
    found: list[str] = field(default_factory=list)

    def add(self, key: str, problem: str) -> None:
        """Notes that `key` (dotted) is wrong."""
        self.found.append(f"{key}: {problem}")

    def raise_any(self) -> None:
        """Raises one TaskError with all problems, if there are any."""
        if self.found:
            count = "one problem" if len(self.found) == 1 else f"{len(self.found)} problems"
            listed = "".join(f"\n  - {p}" for p in self.found)
            raise TaskError(
                f"the task file has {count}:{listed}",
                where=self.file,
                next_step="correct the keys named above (in the file, or in --set)",
            )


def read_task(path: Path, overrides: Mapping[str, Any]) -> TaskSpec:
    """Reads one task file, sets `overrides` (dotted key to value) in it and validates all of it.

    Raises:
        TaskError: the file is missing, not TOML, or has any wrong key or value; all are reported at once.
    """
    raw = read_toml(path)
    for key, value in overrides.items():
        apply_override(raw, key, value, path)
    problems = Problems(path)
    raw_nodes = raw.pop("nodes", {})
    head = _validate(_TaskHead, raw, "", problems)
    nodes: dict[str, Node] = {}
    if not isinstance(raw_nodes, dict) or not raw_nodes:
        problems.add("nodes", "there must be at least one [nodes.NAME] table")
        raw_nodes = {}
    for name, raw_node in raw_nodes.items():
        if name in ("source", "target"):
            problems.add(f"nodes.{name}", f"{name!r} is the task's own image and cannot name a node")
        elif node := _node(name, raw_node, problems):
            nodes[name] = node
    problems.raise_any()
    assert isinstance(head, _TaskHead)
    return TaskSpec(**{name: getattr(head, name) for name in _TaskHead.model_fields}, nodes=nodes, file=path)


def _node(name: str, raw: Any, problems: Problems) -> Node | None:
    key = f"nodes.{name}"
    if not isinstance(raw, dict):
        problems.add(key, "must be a table")
        return None
    head = _validate(_NodeHead, {k: raw[k] for k in ("use", "inputs") if k in raw}, key, problems)
    use = raw.get("use")
    kind = find_kind(use) if isinstance(use, str) else None
    if isinstance(use, str) and kind is None:
        hint = f"it is now called {RENAMED[use]!r}" if use in RENAMED else did_you_mean(use, known_kinds())
        problems.add(f"{key}.use", f"unknown kind of node {use!r}; {hint}")
        return None
    if head is None or kind is None:
        return None
    assert isinstance(head, _NodeHead)
    rest = {k: v for k, v in raw.items() if k not in ("use", "inputs")}
    params = _validate(kind.params, rest, key, problems)
    if isinstance(params, TrainedConfig):
        try:
            params.training.check_phases(system_named(head.use).phases(params))
        except ValueError as error:
            problems.add(key, str(error))
    return None if params is None else Node(name, head.use, head.inputs, params)


def _validate(model: type[Config], raw: Mapping[str, Any], prefix: str, problems: Problems) -> Config | None:
    try:
        return model.model_validate(dict(raw))
    except ValidationError as error:
        for found in error.errors():
            loc = found["loc"]
            key = ".".join(str(part) for part in ([prefix] if prefix else []) + list(loc))
            message = found["msg"][0].lower() + found["msg"][1:]
            if found["type"] == "missing":
                message = "missing"
            elif found["type"] == "extra_forbidden":
                inside = ".".join(str(part) for part in loc)
                known = sorted(_known_keys(model, loc[:-1]))
                message = f"unknown key; {did_you_mean(str(loc[-1]), known)}"
                if inside in RENAMED_KEYS:
                    message = f"unknown key; it is now {RENAMED_KEYS[inside]}"
            problems.add(key, message)
        return None


def _known_keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> set[str]:
    """The keys of the model that stands at `loc` within `model`."""
    found = model
    for part in loc:
        if isinstance(part, str) and part in found.model_fields:
            annotation = found.model_fields[part].annotation
            candidates = [annotation, *get_args(annotation)]
            found = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), found)
    return set(found.model_fields)


def without_none(value: Any) -> Any:
    """TOML has no None: what has none is left to its default, which it is."""
    if isinstance(value, dict):
        return {key: without_none(v) for key, v in value.items() if v is not None}
    return [without_none(v) for v in value] if isinstance(value, list) else value
