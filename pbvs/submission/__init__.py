"""Packs translated images into a zip for the leaderboard, and checks a zip before its upload."""

from pbvs.submission.build import BuiltZip, build
from pbvs.submission.check import check
from pbvs.submission.readme import ReadmeFields, parse
from pbvs.submission.rules import CheckReport, Expected, Problem

__all__ = [
    "BuiltZip",
    "CheckReport",
    "Expected",
    "Problem",
    "ReadmeFields",
    "build",
    "check",
    "parse",
]
