"""Kills duly at work, again and again, and counts what is lost, doubled, run twice or stuck.

`python -m tests.crash --kills 500 --seed 1` does it and prints the counts.

load      the application: functions that leave a trace of having run
worker    the process that is killed: opens the app and calls it without pause
child     forks such a process off one that has imported everything, and kills it
campaign  rounds of kills on one store each, and what they prove to have hit
history   reads what a round left behind: the store, and the diaries of its processes
checker   the invariants, as rules over such a history
nodes     the same on three nodes that share a store in PostgreSQL
report    the counts of a run, and those of all runs so far
"""
