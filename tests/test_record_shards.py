"""Shards of one record, certified apart and merged."""

from pathlib import Path

import pytest
from test_records import IDS, PARAMETERS, finished, unfinished, without_time

from lib.records import Record, merge


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    return [finished(tmp_path / f"shard_{k}.tsv", IDS[k::3], seconds=0.1 * k) for k in range(3)]


def test_merged_shards_have_the_bytes_of_one_run(tmp_path, shards):
    merge(shards, tmp_path / "merged.tsv", IDS)
    assert without_time(tmp_path / "merged.tsv") == without_time(finished(tmp_path / "whole.tsv"))
    assert Record(tmp_path / "merged.tsv", PARAMETERS, IDS).complete


def test_merging_twice_changes_nothing(tmp_path, shards):
    merge(shards, tmp_path / "merged.tsv")
    before = (tmp_path / "merged.tsv").stat().st_mtime_ns
    merge(shards, tmp_path / "merged.tsv")
    assert (tmp_path / "merged.tsv").stat().st_mtime_ns == before


def test_shards_with_other_parameters_are_not_merged(tmp_path, shards):
    other = finished(tmp_path / "other.tsv", [100], PARAMETERS | {"seed": 1})
    with pytest.raises(ValueError, match=r"other\.tsv was made with other .*seed is 0 there and 1 here"):
        merge([*shards, other], tmp_path / "merged.tsv")


def test_an_image_in_two_shards_is_refused(tmp_path, shards):
    with pytest.raises(ValueError, match=r"images \[3\] are in more than one"):
        merge([*shards, finished(tmp_path / "again.tsv", [3])], tmp_path / "merged.tsv")


def test_missing_and_surplus_images_are_refused(tmp_path, shards):
    with pytest.raises(ValueError, match=r"missing \[99\], not asked for \[0\]"):
        merge(shards, tmp_path / "merged.tsv", [*IDS[1:], 99])
    assert not (tmp_path / "merged.tsv").exists()


def test_a_shard_that_is_not_finished_is_refused(tmp_path, shards):
    unfinished(tmp_path / "half.tsv", 2)
    with pytest.raises(FileNotFoundError, match=r"half\.tsv is not a finished record"):
        merge([*shards, tmp_path / "half.tsv"], tmp_path / "merged.tsv")


def test_a_shard_that_lost_its_end_is_refused(tmp_path, shards):
    shards[0].write_bytes(shards[0].read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"shard_0\.tsv, line 8 is cut off"):
        merge(shards, tmp_path / "merged.tsv")


def test_no_shards_at_all_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one shard"):
        merge([], tmp_path / "merged.tsv")
