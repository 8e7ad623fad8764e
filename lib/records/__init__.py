"""What is kept: the certification log, one row an image with the counts behind it; ours and the papers'."""

from lib.records.composed import composed_log
from lib.records.readers import detect_alpha, read_log, recertify
from lib.records.record import Record
from lib.records.recount import recount
from lib.records.row import ABSTAIN, COLUMNS, Row

__all__ = ["ABSTAIN", "COLUMNS", "Record", "Row", "composed_log", "detect_alpha", "read_log", "recertify", "recount"]
