"""`python -m event_handler` is the command `teleport-event-handler`."""

from event_handler.cli import main

main()
