"""Steps are skipped by fingerprint, and say why they are done."""

import json
import os

import pytest

from pbvs.core.errors import UsageError
from pbvs.pipeline.steps import Step, chosen_steps, differences, run_steps


class Chain:
    """a -> b: b copies what a wrote; a depends on `value`."""

    def __init__(self, folder):
        self.folder, self.value, self.works = folder, "1", []

    def steps(self):
        a, b = self.folder / "a.txt", self.folder / "b.txt"
        return [
            self._step("a", (), {"value": lambda: self.value}, a, lambda: a.write_text(self.value)),
            self._step("b", ("a",), {"a's file": a.read_text}, b, lambda: b.write_text(a.read_text())),
        ]

    def _step(self, name, needs, provenance, out, work):
        def working():
            self.works.append(name)
            work()
            return "done"

        return Step(
            name,
            self.folder / f"{name}.json",
            lambda: {k: v() for k, v in provenance.items()},
            lambda: [out],
            working,
            needs,
        )

    def run(self, **options):
        events = []
        self.works.clear()
        run_steps(self.steps(), events.append, **options)
        return [(e.step, e.state, e.message) for e in events if e.state != "doing"]


@pytest.fixture
def chain(tmp_path):
    chain = Chain(tmp_path)
    chain.run()
    return chain


def test_the_second_time_everything_is_skipped_and_says_why(chain):
    events = chain.run()
    assert [state for _, state, _ in events] == ["skipped", "skipped"]
    assert all("nothing it depends on has changed" in message for *_, message in events)
    assert chain.works == []


def test_touched_files_are_not_changes(chain):
    os.utime(chain.folder / "a.txt", (1, 1))
    chain.run()
    assert chain.works == []


def test_a_change_reaches_all_that_depends_on_it(chain):
    chain.value = "2"
    plan = chain.run(plan_only=True)
    assert plan == [("a", "would do", "value changed"), ("b", "would do", "a comes before it")]
    assert chain.works == []
    chain.run()
    assert chain.works == ["a", "b"]
    assert (chain.folder / "b.txt").read_text() == "2"


def test_a_missing_or_edited_output_is_redone(chain):
    (chain.folder / "b.txt").write_text("edited")
    assert "b.txt was changed" in chain.run(plan_only=True)[1][2]
    (chain.folder / "b.txt").unlink()
    assert "is missing" in chain.run(plan_only=True)[1][2]
    chain.run()
    assert chain.works == ["b"]


def test_a_step_that_failed_is_not_taken_as_done(chain):
    chain.value = "2"
    steps = chain.steps()

    def fail():
        raise OSError("disk full")

    steps[0].work = fail
    with pytest.raises(OSError, match="disk full"):
        run_steps(steps, lambda event: None)
    assert chain.run(plan_only=True)[0] == ("a", "would do", "not done yet")


def test_an_accepted_step_is_up_to_date(chain):
    chain.value = "2"
    chain.run(accepted=["a"])
    assert chain.works == []


def test_parts_of_a_run(chain):
    assert [s.name for s in chosen_steps(chain.steps(), "b", None)] == ["b"]
    assert [s.name for s in chosen_steps(chain.steps(), None, "a")] == ["a"]
    with pytest.raises(UsageError, match="no step 'c'"):
        chosen_steps(chain.steps(), "c", None)
    with pytest.raises(UsageError, match="does not depend"):
        chosen_steps(chain.steps(), "b", "a")


def test_differences_name_both_versions_and_only_keys_else():
    before = {"score": "version 1", "rules": "a", "gone": "x", "same": "y"}
    now = {"score": "version 2", "rules": "b", "added": "x", "same": "y"}
    assert differences(before, now) == [
        "score changed from version 1 to version 2",
        "rules changed",
        "added is new",
        "gone is gone",
    ]


def test_a_step_that_0_1_0_recorded_is_accepted_with_its_code_hash_and_versions_of_1(chain):
    """Its record has a hash of source text and no versions; anything else that differs still counts."""
    record = chain.folder / "a.json"
    done = json.loads(record.read_text())
    old = {"value": "1", "code": "0123"}
    record.write_text(json.dumps({"step": "a", "made_of": old, "outputs": done["outputs"]}))
    [a, _] = chain.steps()

    def reasons(**now):
        a.provenance = lambda: {"value": "1", **now}
        return a.stale()

    assert reasons() == reasons(score="version 1") == []
    assert reasons(score="version 2") == ["score is new"]
    assert reasons(value="2") == ["value changed"]
