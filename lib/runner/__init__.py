"""Notebooks as jobs: planned and checked, executed by papermill, swept over grids, reported."""
