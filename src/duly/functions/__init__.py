"""What applications write, and how one call of it runs."""
