"""Indexes in memory: keys of rows, ranges of keys, an interval tree of ranges, and overlays of writes over a scan."""
