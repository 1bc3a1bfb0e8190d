"""Other job systems on PostgreSQL, measured on the server that duly is measured on."""
