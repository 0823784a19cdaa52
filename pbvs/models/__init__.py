"""The networks."""

from pbvs.systems.pix2pixhd.official import from_official, load_official, to_official, write_official

__all__ = ["from_official", "load_official", "to_official", "write_official"]
