"""Serializable transactions over a storage engine, group commit, snapshots for queries, and the commit log."""
