"""Serializable transactions over a storage engine, group commit, and being told what changed."""
