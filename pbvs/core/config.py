"""The base class of every configuration."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A closed, immutable configuration: an unknown key is an error, and so is assignment after creation."""

    model_config = ConfigDict(extra="forbid", frozen=True)
