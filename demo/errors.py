"""What keeps a demo from being shown, in one message for a person."""


class DemoError(Exception):
    """The demo could not be run to its end."""
