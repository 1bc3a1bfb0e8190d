"""What runs again and again. `duly crons list` shows when."""

from duly import cron_jobs

from . import tasks

crons = cron_jobs()
crons.daily("delete done tasks", {"hour_utc": 3, "minute_utc": 0}, tasks.delete_done)
