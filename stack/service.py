"""A server that serves, its end, and the log that tells of it."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from stack import home
from stack.servers import PostgreSQL, Valkey

STOP_SECONDS = 20  # Then SIGKILL: the next start recovers.
LOG_TAIL_BYTES = 2000


@dataclass
class Service:
    """A server at work. Its port and log stay; its process is another one after a restart."""

    server: PostgreSQL | Valkey
    port: int
    log: Path
    process: subprocess.Popen[bytes]

    def end(self, *, immediate: bool = False) -> None:
        """Stop the server, in good order or as a crash would."""
        end(self.process, self.server.abort_signal if immediate else self.server.stop_signal)

    @property
    def silence(self) -> str:
        """What is to be said of a server that does not serve."""
        return f"{self.server.name} does not serve (status {self.process.returncode}); its log ends:\n{tail(self.log)}"


def end(process: subprocess.Popen[bytes], stop_signal: int) -> None:
    """Send a program its signal if it still runs, and see to its end."""
    if process.poll() is None:
        process.send_signal(stop_signal)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def open_log(path: Path) -> BinaryIO:
    """Open a log to add to it; a new one is its owner's alone, since statements stand in it."""
    if not path.exists():
        home.private_file(path)
    return path.open("ab")


def tail(log: Path, start_bytes: int = 0) -> str:
    """The end of a log, or of what stands in it after so many bytes."""
    return log.read_bytes()[start_bytes:][-LOG_TAIL_BYTES:].decode(errors="replace").strip()
