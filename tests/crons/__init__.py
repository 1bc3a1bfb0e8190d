"""Crons for a long time and through many deaths: each slot is run once, or logged as skipped.

`python -m tests.crons.kills --engine postgres --kills 100 --seed 1` kills processes at work and prints the counts.
`python -m tests.crons.year --seed 1 --days 365 --crons 300` lives a year on the virtual clock and prints them.

load     the application of the kills: crons that run every second, and leave a trace of having run
node     the process that is killed: opens the app on a clock that goes fast
account  the rules: each slot has one run, or one log of having been skipped
kills    kills and stops such processes, one on a store or three, and goes through the account
twin     a cron as it should be, which says what becomes of each slot
year     random crons of all kinds beside their twins, on the virtual clock, with crashes, pauses, edits and clock jumps
"""
