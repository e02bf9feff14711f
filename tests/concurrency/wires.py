"""A wire between processes and their server, which can be made slow, and cut while something is on its way."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK_BYTES = 65_536
_START_SECONDS = 20


class Wire:
    """Passes everything on to one server, from a port of its own.

    Attributes:
        delay_seconds: what each piece that goes to the server waits; it can be changed at any time.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._url = url
        self._host, self._port = parts.hostname, parts.port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._own_port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self.delay_seconds = 0.0

    def through(self, url: str) -> str:
        """The URL of the same server that leads through this wire."""
        return url.replace(f":{self._port}", f":{self._own_port}")

    def cut(self) -> None:
        """Break each connection: what the server has received it does, and its answer is lost."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._abort)

    async def open(self) -> asyncio.Server:
        """Listen on a free port."""
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._own_port = server.sockets[0].getsockname()[1]
        return server

    def _abort(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # At the end of the loop it is cancelled, of which asyncio's streams would make an error.
        with suppress(OSError, asyncio.CancelledError), self._known(writer):
            there, to_there = await asyncio.open_connection(self._host, self._port)
            with self._known(to_there):
                pumps = [
                    asyncio.ensure_future(self._pump(reader, to_there, slow=True)),
                    asyncio.ensure_future(self._pump(there, writer, slow=False)),
                ]
                try:
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for pump in pumps:
                        pump.cancel()

    @contextmanager
    def _known(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        """Let a connection be cut during the block; closed at its end."""
        self._writers.add(writer)
        try:
            yield
        finally:
            self._writers.remove(writer)
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slow: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                if slow and self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                writer.write(data)
                await writer.drain()


@contextmanager
def wired(*wires: Wire) -> Iterator[None]:
    """Have these wires, in a thread of their own, for the length of the block."""
    ready, over = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        servers = [await wire.open() for wire in wires]
        loops.append(asyncio.get_running_loop())
        ready.set()
        await over.wait()
        for server in servers:
            server.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="wires")
    thread.start()
    try:
        assert ready.wait(_START_SECONDS), "the wires were not ready in time"
        yield
    finally:
        if loops:
            loops[0].call_soon_threadsafe(over.set)
        thread.join()
