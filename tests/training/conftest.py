from __future__ import annotations

import pytest

from pbvs.training import loop


@pytest.fixture(autouse=True)
def _logging_as_it_was(monkeypatch):
    """`small_runs.trainer` sets how often a run logs: not for the tests after it in the same process."""
    monkeypatch.setattr(loop, "_LOG_EVERY_STEPS", loop._LOG_EVERY_STEPS)
