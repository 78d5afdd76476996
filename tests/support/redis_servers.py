"""Real Redis set-ups for tests, from one binary: servers, a Sentinel set-up, a Cluster. They end with the block."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import redis

from leibniz_voice.transports.state.embedded_redis import find_server

# Becomes the server and dies with the tests, also if they are killed.
_LAUNCH = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def free_port() -> int:
    """A TCP port that nobody uses; below 55535, as a Cluster's bus listens 10000 above."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port < 55_000:
            return port


class Server:
    """One redis-server (or Sentinel) on a port of 127.0.0.1."""

    def __init__(self, folder: Path, *flags: str, port: int | None = None, config: str | None = None) -> None:
        self.port = port or free_port()
        self.folder = folder / str(self.port)
        self.folder.mkdir(exist_ok=True)
        self._flags = list(flags)
        if config is not None:
            (self.folder / "sentinel.conf").write_text(f"port {self.port}\ndir {self.folder}\n{config}")
        self._is_sentinel = config is not None
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        binary = find_server()
        assert binary is not None
        if self._is_sentinel:
            arguments = [str(self.folder / "sentinel.conf"), "--sentinel"]
        else:
            arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
            arguments += ["--dir", str(self.folder), *self._flags]
        launch = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), binary, *arguments]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(launch, stdout=log, stderr=subprocess.STDOUT)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, decode_responses=True, socket_timeout=2)

    def ask(self, *command: str) -> object:
        with self.client() as client:
            return client.execute_command(*command)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def restart(self) -> None:
        self.kill()
        self.process = self._start()
        self.wait()

    def wait(self) -> None:
        until(lambda: self.ask("PING"))


def until(condition: Callable[[], object], limit_s: float = 20.0) -> None:
    """Wait for another process; errors count as not yet."""
    deadline = time.monotonic() + limit_s
    while True:
        with contextlib.suppress(redis.RedisError, OSError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {limit_s} s")
        time.sleep(0.02)


@contextlib.contextmanager
def ending(servers: list[Server]) -> Iterator[None]:
    try:
        yield
    finally:
        for server in servers:
            server.kill()


@contextlib.contextmanager
def replicas(folder: Path) -> Iterator[tuple[Server, Server]]:
    """A master and its replica, without anybody who watches them."""
    servers: list[Server] = []
    with ending(servers):
        master = Server(folder)
        servers.append(master)
        master.wait()
        replica = Server(folder, "--replicaof", "127.0.0.1", str(master.port), "--repl-diskless-sync-delay", "0")
        servers.append(replica)
        until(lambda: is_up(replica))
        yield master, replica


def is_up(replica: Server) -> bool:
    """Whether the replica follows its master."""
    with replica.client() as client:
        return client.info("replication").get("master_link_status") == "up"


class SentinelSetup:
    """A master, a replica, and three Sentinels that watch the master under the name `calls`."""

    def __init__(self, master: Server, replica: Server, sentinels: list[Server], scheme: str = "redis") -> None:
        self.master, self.replica, self.sentinels = master, replica, sentinels
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
        self.url = f"{scheme}+sentinel://{hosts}/calls"

    def master_port(self) -> int:
        """Whom the first Sentinel takes for the master."""
        with self.sentinels[0].client() as client:
            return int(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "calls")[1])


@contextlib.contextmanager
def sentinel_setup(folder: Path, *, down_ms: int = 500) -> Iterator[SentinelSetup]:
    """Ready when every Sentinel knows the replica and the others. Its failover takes about `down_ms` + 1 s."""
    sentinels: list[Server] = []
    with replicas(folder) as (master, replica), ending(sentinels):
        config = f"""sentinel monitor calls 127.0.0.1 {master.port} 2
sentinel down-after-milliseconds calls {down_ms}
sentinel failover-timeout calls 3000
sentinel parallel-syncs calls 1
"""
        sentinels += [Server(folder, config=config) for _ in range(3)]

        def know_each_other() -> bool:
            for sentinel in sentinels:
                with sentinel.client() as client:
                    state = client.sentinel_master("calls")
                    if state["num-other-sentinels"] != 2 or state["num-slaves"] != 1:
                        return False
            return True

        until(know_each_other, 30)
        yield SentinelSetup(master, replica, sentinels)


class ClusterSetup:
    """Three masters with a third of the slots each, and a replica of each if asked."""

    def __init__(self, nodes: list[Server], masters: int) -> None:
        self.nodes, self.masters = nodes, nodes[:masters]
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)

    def client(self) -> redis.RedisCluster:
        return redis.RedisCluster(port=self.nodes[-1].port, host="127.0.0.1", decode_responses=True)


@contextlib.contextmanager
def cluster(folder: Path, *, is_replicated: bool = False) -> Iterator[ClusterSetup]:
    """Ready when every node says so."""
    nodes: list[Server] = []
    flags = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no")
    flags += ("--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0")
    with ending(nodes):
        nodes += [Server(folder, *flags) for _ in range(6 if is_replicated else 3)]
        for node in nodes:
            node.wait()
        for index, node in enumerate(nodes[:3]):
            slots = range(16384 * index // 3, 16384 * (index + 1) // 3)
            node.ask("CLUSTER", "ADDSLOTS", *map(str, slots))
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", str(index + 1))
        for node in nodes[1:]:
            node.ask("CLUSTER", "MEET", "127.0.0.1", str(nodes[0].port))
        until(lambda: all(_knows(node, len(nodes)) for node in nodes))
        for node, master in zip(nodes[3:], nodes[:3], strict=False):
            until(lambda node=node, master=master: node.ask("CLUSTER", "REPLICATE", str(master.ask("CLUSTER", "MYID"))))
        until(lambda: all(_is_well(node) for node in nodes))
        until(lambda: all(is_up(node) for node in nodes[3:]))
        yield ClusterSetup(nodes, 3)


def _is_well(node: Server) -> bool:
    with node.client() as client:
        return client.cluster("info")["cluster_state"] == "ok"


def _knows(node: Server, count: int) -> bool:
    with node.client() as client:
        return int(client.cluster("info")["cluster_known_nodes"]) == count


def make_certificate(folder: Path) -> tuple[Path, Path] | None:
    """A self-made certificate for 127.0.0.1 and its key; None without `openssl`."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        return None
    return certificate, key
