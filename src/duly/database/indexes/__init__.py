"""Indexes in memory: the keys of rows, ranges of keys, who has read which, and what writes change in a scan."""
