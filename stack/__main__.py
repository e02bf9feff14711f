"""`python -m stack COMMAND…` runs a command with the three URLs of a temporary stack, and exits as it did.

The command shares the terminal: it gets Ctrl-C itself, and the stack waits for it to end.
"""

import os
import signal
import subprocess
import sys
from types import FrameType

import stack


def main(command: list[str]) -> int:
    """Run the command and return its exit code; 128 + n when signal n ended it."""
    with stack.running() as servers:
        try:
            child = subprocess.Popen(command, env={**os.environ, **servers.environ})
        except OSError as error:
            raise stack.StackError(f"{command[0]}: {error.strerror}") from None

        def forward(number: int, _frame: FrameType | None) -> None:
            child.send_signal(number)

        # A handler, not SIG_IGN, which a command that starts later would inherit.
        signal.signal(signal.SIGINT, lambda _number, _frame: None)
        signal.signal(signal.SIGTERM, forward)
        signal.signal(signal.SIGHUP, forward)
        code = child.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit("usage: python -m stack COMMAND…")
    try:
        sys.exit(main(sys.argv[1:]))
    except stack.StackError as error:
        sys.exit(f"stack: {error}")
