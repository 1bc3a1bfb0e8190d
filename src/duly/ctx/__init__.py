"""What a handler is given: its context, with the scheduler, the crons and the log of one call."""
