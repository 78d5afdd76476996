"""The state store over TLS, on a Cluster, and behind Sentinels: real servers, real failovers."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from leibniz_voice.pipeline.conversation.snapshot import ConversationFields
from leibniz_voice.pipeline.conversation.store import LogLine, Write, WriteOutcome
from leibniz_voice.pipeline.errors import ConfigurationError
from leibniz_voice.transports.state.mirror import Mirror
from leibniz_voice.transports.state.redis_store import RedisStore
from leibniz_voice.transports.state.redis_url import connect, without_password
from tests.support.tools import needs

from ...support.redis_servers import ClusterSetup, Server, cluster, ending, make_certificate, sentinel_setup

pytestmark = [
    pytest.mark.slow,
    needs("redis"),
]
LINE = LogLine("listening", "thinking", "vad_end", 1, 1.5)


async def a_session_lives(store: RedisStore) -> None:
    """Claim, write with a log line, claim again, fence, quarantine: everything that a store does."""
    await store.start()
    claim = await store.claim("s1", "a")
    fields = ConversationFields(state="thinking", turn_id=4).to_fields()
    (result,) = await store.write([Write("s1", "a", claim.epoch, 1, fields, [LINE])])
    assert result.outcome is WriteOutcome.STORED
    again = await store.claim("s1", "b")
    assert again.fields is not None
    assert (again.fields.turn_id, again.previous_owner) == (4, "a")
    (late,) = await store.write([Write("s1", "a", claim.epoch, 2, fields)])
    assert late.outcome is WriteOutcome.FENCED
    await store.write([Write("s1", "b", again.epoch, 1, {**fields, "intent": "{broken"})])
    assert not (await store.claim("s1", "c")).resumed
    claims = [await store.claim(f"many-{number}", "a") for number in range(50)]
    results = await store.write([Write(c.session_id, "a", c.epoch, 1, fields, [LINE]) for c in claims])
    assert {result.outcome for result in results} == {WriteOutcome.STORED}
    assert store.healthy
    await store.close()


@contextlib.asynccontextmanager
async def tls_in_front_of(server: Server, certificate: Path, key: Path) -> AsyncIterator[int]:
    """A port that speaks TLS and hands on to `server`; the embedded binary is built without TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    front = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield front.sockets[0].getsockname()[1]
    finally:
        front.close()


def test_over_tls_with_a_certificate_of_ones_own(tmp_path: Path) -> None:
    made = make_certificate(tmp_path)
    if made is None:
        pytest.skip("openssl makes the certificate of this test")
    certificate, key = made

    async def body(server: Server) -> None:
        async with tls_in_front_of(server, certificate, key) as port:
            await a_session_lives(RedisStore(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}"))
            stranger = RedisStore(f"rediss://127.0.0.1:{port}/0")
            await stranger.start()
            assert not stranger.healthy  # nobody vouches for that certificate
            await stranger.close()
            await asyncio.sleep(0.1)  # let the pumps see the end of their connections

    server = Server(tmp_path)
    with ending([server]):
        server.wait()
        asyncio.run(body(server))


def test_on_a_cluster(tmp_path: Path) -> None:
    with cluster(tmp_path) as setup:
        asyncio.run(a_session_lives(RedisStore(setup.url)))
        asyncio.run(a_session_lives(RedisStore(f"redis://127.0.0.1:{setup.nodes[0].port}/0?cluster=true")))
        with setup.client() as client:
            assert client.hget("session:s1", "owner") == "c"
        nodes_used = {node.port for node in setup.nodes if node.ask("DBSIZE")}
        assert len(nodes_used) == 3


def test_behind_sentinels(tmp_path: Path) -> None:
    with sentinel_setup(tmp_path) as setup:
        asyncio.run(a_session_lives(RedisStore(setup.url)))


async def changing_through(
    url: str, fail: Callable[[], None], has_failed_over: Callable[[], bool], stored: Callable[[str], str | None]
) -> tuple[int, int, float]:
    """100 conversations change all the time, a failover happens; returns (unsent, stale, seconds after it)."""
    store = RedisStore(url)
    await store.start()
    mirror = Mirror(store)
    await mirror.start()
    conversations = [ConversationFields() for _ in range(100)]
    sessions = [mirror.open(await mirror.claim(f"f{i}"), c) for i, c in enumerate(conversations)]

    async def change(until: Callable[[], bool]) -> None:
        looked = asyncio.ensure_future(asyncio.to_thread(until))
        while not (looked.done() and looked.result()):
            if looked.done():
                looked = asyncio.ensure_future(asyncio.to_thread(until))
            for session, conversation in zip(sessions[:90], conversations, strict=False):  # ten stay as they are
                conversation.turn_number += 1
                session.update(LINE)
            await asyncio.sleep(0.02)

    began = time.monotonic()
    await change(lambda: time.monotonic() - began > 0.5)
    fail()
    await change(has_failed_over)
    back = time.monotonic()
    unsent = await mirror.drain(10)
    await asyncio.sleep(0.05)  # what the first success after the failure has marked once more
    unsent += await mirror.drain(10)
    took_s = time.monotonic() - back
    store_name = store.describe().partition("://")[0]
    stale = sum(stored(f"session:f{i}") != str(c.turn_number) for i, c in enumerate(conversations))
    print(f"{store_name}: complete {took_s:.2f} s after the failover, {unsent} unsent, {stale} of 100 sessions stale")
    await mirror.stop()
    await store.close()
    return unsent, stale, took_s


@pytest.mark.parametrize("kind", ["killed", "frozen"])
def test_a_sentinel_failover_leaves_nothing_stale(tmp_path: Path, kind: str) -> None:
    with sentinel_setup(tmp_path) as setup, setup.replica.client() as new:
        unsent, stale, took_s = asyncio.run(
            changing_through(
                setup.url,
                setup.master.kill if kind == "killed" else setup.master.freeze,
                lambda: setup.master_port() == setup.replica.port and new.info("replication")["role"] == "master",
                lambda key: new.hget(key, "turn_number"),
            )
        )
    assert (unsent, stale) == (0, 0)
    assert took_s < 2.0


def a_replica_leads(setup: ClusterSetup) -> bool:
    with setup.nodes[3].client() as client:
        return client.info("replication")["role"] == "master" and client.cluster("info")["cluster_state"] == "ok"


def test_a_cluster_failover_leaves_nothing_stale(tmp_path: Path) -> None:
    with cluster(tmp_path, is_replicated=True) as setup:

        def stored(key: str) -> str | None:
            return client.hget(key, "turn_number")

        with setup.client() as client:
            failed = setup.nodes[0].kill
            unsent, stale, took_s = asyncio.run(
                changing_through(setup.url, failed, lambda: a_replica_leads(setup), stored)
            )
    assert (unsent, stale) == (0, 0)
    assert took_s < 2.0


@pytest.mark.parametrize(
    "url",
    [
        "http://h",
        "redis+sentinel://h:1",
        "redis+cluster://",
        "redis+sentinel://:9/calls",
        "redis://h:port/0",
        "",
        "h:1",
    ],
)
def test_a_url_that_is_none_says_so(url: str) -> None:
    with pytest.raises(ConfigurationError, match="not a Redis URL"):
        connect(url, timeout_s=0.1, max_connections=2)


def test_passwords_stay_out_of_the_log() -> None:
    for url in ("redis+sentinel://u:secret@h:1,h:2/calls?sentinel_password=secret", "rediss+cluster://:secret@h"):
        assert "secret" not in without_password(url)
        assert "secret" not in RedisStore(url).describe()
