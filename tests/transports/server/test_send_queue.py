"""A client that takes nothing: its messages wait in order, and then it is cut off; nobody else notices."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest

from leibniz_voice.pipeline import Pipeline, Processor, Session, consumes
from leibniz_voice.pipeline.frames import ClientTurnEndFrame, TextBufferFrame
from leibniz_voice.pipeline.testing import run_virtual
from leibniz_voice.transports.access.limits import REFUSED, Limits
from leibniz_voice.transports.server.client_socket import NOTSENT_LOWAT, USER_TIMEOUT_MS
from leibniz_voice.transports.server.send_queue import MAX_WAITING, SendQueue
from tests.support.serving import joined, served


class SlowSocket:
    """Takes `room` messages, then none until it is given more room."""

    def __init__(self, room: int = 0) -> None:
        self.room = room
        self.taken: list[str | bytes] = []
        self.aborted_at: float | None = None

    def try_send(self, message: str | bytes) -> bool:
        if self.room:
            self.room -= 1
            self.taken.append(message)
            return True
        return False

    def abort(self) -> None:
        self.aborted_at = asyncio.get_running_loop().time()


def test_what_a_slow_client_cannot_take_waits_in_order() -> None:
    async def main() -> SlowSocket:
        client = SlowSocket(room=2)
        wire = SendQueue(client)  # type: ignore[arg-type] # the part of it that a wire uses
        wire.start("first")
        for number in range(5):
            wire.send_text(str(number))
        await asyncio.sleep(1.5)
        client.room = 1
        await asyncio.sleep(1.5)
        client.room = 99
        await asyncio.sleep(0.1)
        assert client.aborted_at is None
        return client

    assert run_virtual(main()).taken == ["first", "0", "1", "2", "3", "4"]


def test_a_client_that_takes_nothing_for_its_time_is_aborted() -> None:
    async def main() -> None:
        client, began = SlowSocket(room=1), asyncio.get_running_loop().time()
        wire = SendQueue(client, send_s=2.0)  # type: ignore[arg-type]
        wire.start("ready")
        wire.send_audio(bytes(640))
        await asyncio.sleep(5)
        assert wire.is_aborted
        assert client.aborted_at == pytest.approx(began + 2.0, abs=0.05)

    run_virtual(main())


def test_a_client_for_which_too_much_waits_is_aborted_at_once() -> None:
    async def main() -> None:
        client = SlowSocket(room=1)
        wire = SendQueue(client)  # type: ignore[arg-type]
        wire.start("ready")
        for _ in range(MAX_WAITING):
            wire.send_audio(bytes(640))
        assert client.aborted_at is None
        wire.send_audio(bytes(640))
        assert client.aborted_at is not None

    run_virtual(main())


# ------------------------------------------------------------------------------------------- on a real socket


class Chatter(Processor):
    """Answers the end of a turn with more than any buffer holds."""

    @consumes(ClientTurnEndFrame)
    async def _on_end(self, frame: ClientTurnEndFrame, direction: Any) -> None:
        self.turn_task(self._talk())

    async def _talk(self) -> None:
        for _ in range(2000):
            await self.push_frame(TextBufferFrame(fragments=("x" * 4000,)))
            await asyncio.sleep(0.001)


def build(session: Session) -> Pipeline:
    return Pipeline([session.input, Chatter(), session.output])


@pytest.mark.slow
def test_a_client_that_stops_reading_is_cut_off_and_its_neighbour_is_answered_at_once() -> None:
    async def main() -> None:
        before = REFUSED.labels("not_reading")._value.get()
        async with served(build, limits=Limits(send_s=2.0)) as server:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", server.port))
            deaf = await joined(server, "deaf", sock=sock, compression=None, max_queue=1)
            await deaf.recv()
            await deaf.send('{"type":"vad_end"}')
            deaf.transport.pause_reading()
            worst_s = 0.0
            async with joined(server, "good") as good, asyncio.timeout(20):
                await good.recv()
                while REFUSED.labels("not_reading")._value.get() == before:
                    began = time.perf_counter()
                    await good.send('{"type":"ping"}')
                    assert await good.recv() == '{"type":"pong"}'
                    worst_s = max(worst_s, time.perf_counter() - began)
                    await asyncio.sleep(0.02)
                while server.health()["active_sessions"] > 1:
                    await asyncio.sleep(0.02)
            deaf.transport.abort()
            assert worst_s < 1.0  # less than the deaf one's time: the good one did not wait for it

    asyncio.run(main())


@pytest.mark.slow
def test_conversations_have_small_buffers_and_no_compression() -> None:
    async def main() -> None:
        async with served(build) as server, joined(server) as client:
            await client.recv()
            assert client.response is not None
            assert "Sec-WebSocket-Extensions" not in client.response.headers
            (serving,) = server._server.connections  # type: ignore[union-attr] # the library's, nowhere else to see
            sock = serving.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.IPPROTO_TCP, 25) == NOTSENT_LOWAT  # TCP_NOTSENT_LOWAT
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == USER_TIMEOUT_MS
            assert serving.transport.get_write_buffer_limits()[1] == 4096

    asyncio.run(main())
