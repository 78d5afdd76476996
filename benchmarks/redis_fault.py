"""A proxy in front of a Redis socket, in a process of its own, that can be told to misbehave.

    python benchmarks/redis_fault.py LISTEN_SOCKET REDIS_SOCKET

Reads one word per line from stdin: `pass` hands everything on, `slow` holds each answer back for 200 ms, `nonsense`
answers every request with bytes that are no Redis protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

SLOW_S = 0.2
NONSENSE = b"HTTP/1.1 400 Bad Request\r\n\r\n"


class Proxy:
    """Hands on, late or not at all."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.mode = "pass"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_unix_connection(self.target)
        except OSError:  # killed
            writer.close()
            return
        await asyncio.gather(
            self._requests(reader, inner_writer, writer), self._answers(inner_reader, writer), return_exceptions=True
        )

    async def _requests(
        self, reader: asyncio.StreamReader, inner: asyncio.StreamWriter, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if self.mode == "nonsense":
                    writer.write(NONSENSE)
                else:
                    inner.write(data)
        inner.close()

    async def _answers(self, inner: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while data := await inner.read(65536):
                if self.mode == "slow":
                    loop.call_later(SLOW_S, writer.write, data)
                else:
                    writer.write(data)
        writer.close()


async def main(listen: str, target: str) -> None:
    proxy = Proxy(target)
    server = await asyncio.start_unix_server(proxy.serve, listen)
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    print("ready", flush=True)
    while line := await orders.readline():
        proxy.mode = line.decode().strip()
    server.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
