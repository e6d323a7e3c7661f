"""``python -m ghn`` is the command ``ghn``."""

from ghn.cli import main

main()
