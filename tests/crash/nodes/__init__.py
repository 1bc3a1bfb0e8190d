"""The same on three nodes that share a store in PostgreSQL, of which any may be killed, stopped or cut off.

`python -m tests.crash --engine postgres --kills 300 --seed 1` does it and prints the counts.

node      the process of a node: opens the app, calls it, and does as it is told
cluster   the server, and three places for nodes, each behind a proxy of its own
probe     what the store says meanwhile: who has which part, and what has been completed
faults    what happens to them, drawn by a seed
campaign  rounds of faults on one store each, and what they prove to have hit
history   reads what a round left behind
"""
