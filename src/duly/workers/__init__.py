"""What runs in the background: live queries with an alarm clock."""
