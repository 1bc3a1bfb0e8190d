"""What commands print: tables, times, and jobs and crons in words."""
