"""The networks."""

from pbvs.models.official import from_official, load_official, to_official, write_official

__all__ = ["from_official", "load_official", "to_official", "write_official"]
