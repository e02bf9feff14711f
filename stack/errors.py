"""What can go wrong with the embedded servers. Each text says what happened and what to do about it."""


class StackError(Exception):
    """The embedded PostgreSQL and Valkey cannot be had; the text says why and what to do."""


class PartlyConfiguredError(StackError):
    """Some of the three server URLs are set in the environment and some are not."""


class MissingBinaryError(StackError):
    """A server's program is not installed, or there is none for this platform."""


class UnknownServersError(StackError):
    """HARBOR_STACK_SERVERS names servers that the stack does not know."""


class ServerDiedError(StackError):
    """A server that served has ended, and nobody here asked it to."""


class ForeignServersError(StackError):
    """The servers were started by somebody else, who alone may restart them."""


class StartError(StackError):
    """A server, or the keeper that starts them, failed; the text ends with the tail of its log."""
