"""The system's own tables, as functions of a transaction."""
