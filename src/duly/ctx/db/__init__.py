"""`ctx.db`: documents by id, queries, and writes."""
