from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbvs.core.errors import SubmissionError, UsageError
from pbvs.submission.readme import ReadmeFields, faults, parse

PUBLISHED = (
    "runtime per image [s] : 10.43\n"
    "CPU[1] / GPU[0] : 1\n"
    "Extra Data [1] / No Extra Data [0] : 1\n"
    "Other description : free text\n"
)


def test_the_published_readme_is_written_letter_by_letter():
    fields = ReadmeFields(10.43, cpu=True, extra_data=True, description="free text")
    assert fields.text() == PUBLISHED
    assert parse(PUBLISHED) == fields


def test_gpu_and_no_extra_data_are_zeros():
    lines = ReadmeFields(0.5, cpu=False, extra_data=False, description="d").text().splitlines()
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["0.5", "0", "0", "d"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0"), (0.00001234, "0.00001234"), (3600.0, "3600"), (1 / 3, "0.3333"), (12345.6, "12350")],
)
def test_runtimes_are_plain_decimals_of_four_digits(seconds, text):
    first = ReadmeFields(seconds, cpu=True, extra_data=True, description="d").text().splitlines()[0]
    assert first == f"runtime per image [s] : {text}"


def test_a_description_of_several_lines_becomes_one():
    fields = ReadmeFields(1, cpu=True, extra_data=True, description="  two\nlines\t and\u2028more ")
    assert fields.description == "two lines and more"
    assert faults(fields.text()) == []


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_impossible_runtimes_are_refused(seconds):
    with pytest.raises(UsageError, match="runtime"):
        ReadmeFields(seconds, cpu=True, extra_data=True, description="d")


@pytest.mark.parametrize("description", ["", " \n ", "bad \udcff byte"])
def test_descriptions_that_cannot_be_written_are_refused(description):
    with pytest.raises(UsageError, match="description"):
        ReadmeFields(1, cpu=True, extra_data=True, description=description)


@given(
    seconds=st.floats(0, 1e9, allow_nan=False),
    cpu=st.booleans(),
    extra=st.booleans(),
    description=st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
        lambda text: text.split()
    ),
)
def test_what_is_written_is_read_back(seconds, cpu, extra, description):
    fields = ReadmeFields(seconds, cpu, extra, description)
    back = parse(fields.text())
    assert (back.cpu, back.extra_data, back.description) == (cpu, extra, fields.description)
    assert back.seconds_per_image == pytest.approx(seconds, rel=5.001e-4)
    assert back.text() == fields.text()


def test_windows_line_ends_and_blanks_around_the_colon_pass():
    assert faults(PUBLISHED.replace("\n", "\r\n").replace(" : ", ":  ")) == []
    assert faults(PUBLISHED.rstrip()) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("runtime per image", "Runtime per image", "line 1 must read 'runtime per image [s] : 10.43'"),
        ("10.43", "ten", "'ten' is not a plain number"),
        ("10.43", "-1", "'-1' is not a plain number"),
        ("10.43", "nan", "'nan' is not a plain number"),
        ("10.43", "", "'' is not a plain number"),
        ("CPU[1] / GPU[0] : 1", "CPU[1] / GPU[0] : GPU", "'GPU' is neither 0 nor 1"),
        ("[0] : 1\nOther", "[0] : 2\nOther", "'2' is neither 0 nor 1"),
        ("free text", "", "the description is empty"),
        ("CPU[1] / GPU[0] : 1\n", "", "line 2 must read 'CPU[1] / GPU[0] : 1'"),
        (
            "Other description : free text\n",
            "",
            "line 4 must read 'Other description : free text'; it is missing",
        ),
        ("free text", "free text\nand more", "5 lines instead of 4"),
        ("runtime", "\ufeffruntime", "line 1 must read"),
        (" : ", " = ", "line 3 must read"),
    ],
)
def test_each_fault_is_named(old, new, fault):
    text = PUBLISHED.replace(old, new)
    assert text != PUBLISHED
    assert fault in "; ".join(faults(text))
    with pytest.raises(SubmissionError, match="published form"):
        parse(text)


def test_all_faults_are_listed_at_once():
    assert len(faults("")) == 4
    assert len(faults(PUBLISHED.replace("10.43", "x").replace(": 1", ": 7"))) == 3
