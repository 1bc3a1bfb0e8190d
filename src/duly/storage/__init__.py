"""Storage keeps the present and decides nothing. Only here is SQL."""
