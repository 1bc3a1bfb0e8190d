"""The store in PostgreSQL, which many nodes share."""
