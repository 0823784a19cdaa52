"""From translated images to a zip that the leaderboard takes, and the check that says so beforehand."""

from pbvs.submission.build import BuiltZip, build
from pbvs.submission.check import check
from pbvs.submission.readme import ReadmeFields, parse
from pbvs.submission.rules import TASKS, CheckReport, Expected, Problem

__all__ = [
    "TASKS",
    "BuiltZip",
    "CheckReport",
    "Expected",
    "Problem",
    "ReadmeFields",
    "build",
    "check",
    "parse",
]
