"""The networks. `NETWORKS` in `registry` names those that a task file can ask for."""

from pbvs.models.official import from_official

__all__ = ["from_official"]
