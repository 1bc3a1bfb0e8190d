"""The store in one SQLite file, with one owner process."""
