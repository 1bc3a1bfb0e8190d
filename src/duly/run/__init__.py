"""How one call of a function runs: a query, a mutation, an action, or a scheduled function that is due."""
