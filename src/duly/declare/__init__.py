"""What an application declares: its functions, its crons and its schema, loaded and compiled."""
