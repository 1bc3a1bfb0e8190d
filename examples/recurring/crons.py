"""What runs again and again: every so often, or at times of the day, the week and the month."""

from duly import cron_jobs, internal

crons = cron_jobs()

# Every so often: first when it is deployed, then in step with that, whatever is deployed later.
crons.interval("clear presence", {"seconds": 30}, internal.presence.clear)
crons.interval("sync prices", {"minutes": 5}, internal.prices.sync)
crons.interval("full report", {"hours": 24}, internal.reports.generate)

# At times, of UTC where no zone is named.
crons.hourly("reset high scores", {"minute_utc": 30}, internal.scores.reset)
crons.daily("backup", {"hour_utc": 2, "minute_utc": 0}, internal.backup.run, missed="skip")
crons.daily("delete expired sessions", {"hour_utc": 3, "minute_utc": 0}, internal.sessions.delete_expired)
crons.daily("short report", {"hour_utc": 8, "minute_utc": 0}, internal.reports.generate, {"kind": "short"})
crons.weekly(
    "re-engagement email", {"day_of_week": "monday", "hour_utc": 17, "minute_utc": 30}, internal.emails.invite_back
)
crons.weekly(
    "newsletter",
    {"day_of_week": "monday", "hour_utc": 9, "minute_utc": 0},
    internal.emails.send,
    {"what": "newsletter"},
)
crons.weekly("summary", {"day_of_week": "sunday", "hour_utc": 9}, internal.emails.send, {"what": "summary"})
crons.monthly("billing", {"day": 1, "hour_utc": 0, "minute_utc": 0}, internal.billing.bill_everybody)

# Anything else is a cron expression. This clock is that of Berlin, in summer and in winter.
crons.cron("good morning", "15 7 * * *", internal.emails.send, {"what": "good morning"})
crons.cron("close the till", "0 17 * * 1-5", internal.emails.send, {"what": "close the till"}, tz="Europe/Berlin")
