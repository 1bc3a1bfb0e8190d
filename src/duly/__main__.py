"""`python -m duly`."""

from duly.cli import main

main()
