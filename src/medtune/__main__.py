"""``python -m medtune``: the command line."""

from medtune.cli import main

main()
