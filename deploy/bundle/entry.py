"""What the bundled program runs."""

from event_handler.cli import main

main()
