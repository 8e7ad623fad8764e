"""One row of the certification log, as a value and as a line."""

import pytest
from test_records import row

from lib.records import ABSTAIN, Row


@pytest.mark.parametrize("radius", [0.1234567, 0.9999999, 1e-7, 0.977627, 3.811, 0.1 + 0.2])
def test_no_written_radius_is_above_the_certified_one(radius):
    written = float(row(1, radius=radius).line().split("\t")[3])
    assert radius - 1e-6 < written <= radius


def test_a_row_is_correct_only_where_it_answers_with_the_label():
    flags = [row(1, predict=p, radius=0.0).line().split("\t")[4] for p in (1, 2, ABSTAIN)]
    assert flags == ["1", "0", "0"]


def test_a_row_comes_back_from_its_line():
    assert Row.parse(row(8, radius=0.125).line().rstrip("\n")) == row(8, radius=0.125)


@pytest.mark.parametrize(
    "changes",
    [
        {"radius": float("nan")},
        {"radius": float("inf")},
        {"radius": -0.1},
        {"predict": ABSTAIN, "radius": 0.1},
        {"n_a": 1001},
        {"n_a": -1},
    ],
    ids=str,
)
def test_a_row_that_no_certificate_can_hold_is_refused(changes):
    with pytest.raises(ValueError, match=r"radius must be|n_a and n_b must be"):
        row(1, **changes)
