"""Measures duly against what the disk, SQLite and the timers of the same machine can do."""
