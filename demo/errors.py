"""What keeps a demo from being shown, in one message for a person."""


class DemoError(Exception):
    """The demo could not be run to its end."""


class TraceError(Exception):
    """The input as a whole cannot be replayed; the message names it and the problem."""
