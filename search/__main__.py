"""The command, for `python -m latkit.search`."""

from .cli import main

main()
