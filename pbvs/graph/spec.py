"""Task files as typed, closed specs; every problem of a file is reported at once, with its key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pbvs.archives.layouts import Family, Modality
from pbvs.core.errors import TaskError, did_you_mean
from pbvs.graph.node import Params
from pbvs.graph.node_kinds import NODE_KINDS
from pbvs.graph.task_files import apply_override, read_toml
from pbvs.graph.trained import SizePx
from pbvs.prepare.stretch import PERCENT, Percent, Uint16Rule


class DataRules(BaseModel):
    """How pairs are made of the captures of a location."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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


class _TaskHead(BaseModel):
    """A task file without its nodes, which have models of their own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    source: Modality
    target: Modality
    size_px: SizePx
    output: str
    data: DataRules = DataRules()


class _NodeHead(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    use: str
    inputs: tuple[str, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Node:
    """One node: its name, the kind it uses, the names of its inputs, and its settings."""

    name: str
    use: str
    inputs: tuple[str, ...]
    params: Params

    @property
    def trainable(self) -> bool:
        """Whether the node has weights of its own."""
        return NODE_KINDS[self.use].trainable


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
    """What is wrong with one task file, gathered until `raise_any`."""

    file: Path
    found: list[str] = field(default_factory=list)

    def add(self, key: str, what: str) -> None:
        """Notes that `key` (dotted) is wrong."""
        self.found.append(f"{key}: {what}")

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
    """Reads one task file, lays `overrides` (dotted key to value) over it and validates all of it.

    Raises:
        TaskError: the file is missing, no TOML, or has any wrong key or value; all are told at once.
    """
    raw = read_toml(path)
    for key, value in overrides.items():
        apply_override(raw, key, value, path)
    problems = Problems(path)
    raw_nodes = raw.pop("nodes", {})
    head = _validated(_TaskHead, raw, "", problems)
    nodes = _nodes(raw_nodes, problems)
    problems.raise_any()
    assert isinstance(head, _TaskHead)
    return TaskSpec(**{name: getattr(head, name) for name in _TaskHead.model_fields}, nodes=nodes, file=path)


def _nodes(raw_nodes: Any, problems: Problems) -> dict[str, Node]:
    if not isinstance(raw_nodes, dict) or not raw_nodes:
        problems.add("nodes", "there must be at least one [nodes.NAME] table")
        return {}
    nodes = {}
    for name, raw in raw_nodes.items():
        if name == "source":
            problems.add("nodes.source", "'source' is the task's input and cannot name a node")
        elif node := _node(name, raw, problems):
            nodes[name] = node
    return nodes


def _node(name: str, raw: Any, problems: Problems) -> Node | None:
    key = f"nodes.{name}"
    if not isinstance(raw, dict):
        problems.add(key, "must be a table")
        return None
    head = _validated(_NodeHead, {k: raw[k] for k in ("use", "inputs") if k in raw}, key, problems)
    use = raw.get("use")
    if isinstance(use, str) and use not in NODE_KINDS:
        problems.add(f"{key}.use", f"unknown kind of node {use!r}; {did_you_mean(use, sorted(NODE_KINDS))}")
        return None
    if head is None:
        return None
    assert isinstance(head, _NodeHead)
    rest = {k: v for k, v in raw.items() if k not in ("use", "inputs")}
    params = _validated(NODE_KINDS[head.use].params, rest, key, problems)
    return None if params is None else Node(name, head.use, head.inputs, params)  # type: ignore[arg-type]


def _validated(
    model: type[BaseModel], raw: Mapping[str, Any], prefix: str, problems: Problems
) -> BaseModel | None:
    try:
        return model.model_validate(dict(raw))
    except ValidationError as error:
        for found in error.errors():
            loc = found["loc"]
            key = ".".join(str(part) for part in ([prefix] if prefix else []) + list(loc))
            problems.add(key, _words(model, found["type"], loc, found["msg"]))
        return None


def _words(model: type[BaseModel], kind: str, loc: tuple[int | str, ...], message: str) -> str:
    if kind == "extra_forbidden":
        return f"unknown key; {did_you_mean(str(loc[-1]), sorted(_known_keys(model, loc[:-1])))}"
    return "missing" if kind == "missing" else message[0].lower() + message[1:]


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
