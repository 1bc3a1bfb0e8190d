"""Who remote clients are: tokens of users, and the key of the administrator."""
