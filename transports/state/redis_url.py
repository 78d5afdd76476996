"""A Redis client for a URL, with every setting said: single server, Sentinel, Cluster, TLS.

 redis://[user:password@]host:port/db        one server; rediss:// the same over TLS; unix:///path a socket
 redis+sentinel://host:port,host:port/name   the master `name`, asked of those Sentinels (default port 26379)
 redis+cluster://host:port,host:port         the Cluster that those nodes belong to; redis://...?cluster=true the same

`rediss+sentinel://` and `rediss+cluster://` speak TLS, to the Sentinels too. Query options are redis-py's:
`ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`, `ssl_cert_reqs`, `ssl_check_hostname`; `db` for Sentinel, and
`sentinel_username`, `sentinel_password` where those differ from the server's.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from ...pipeline.errors import ConfigurationError

_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
_CLUSTER_RETRIES = 3  # with none it never asks where a slot has moved


def connect(url: str, *, timeout_s: float, max_connections: int) -> Any:
    """Return a `Redis` or `RedisCluster` that opens no socket yet. Raises ConfigurationError for a URL that is none."""
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        is_cluster = options.pop("cluster", "").lower() in ("1", "true", "yes") or parts.scheme.endswith("+cluster")
        if parts.scheme not in _SCHEMES:
            raise ValueError(f"a URL begins with one of {', '.join(scheme + '://' for scheme in _SCHEMES)}")
        settings = _settings(timeout_s, max_connections, is_unix=parts.scheme == "unix")
        if is_cluster:
            return _cluster(parts, options, settings)
        if parts.scheme.endswith("+sentinel"):
            return _sentinel(parts, options, settings)
        return Redis.from_url(url, **settings)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"not a Redis URL: {without_password(url)} ({error})") from error


async def close(client: Any) -> None:
    """Close every connection that `connect`'s client has, those too that the library forgets."""
    if isinstance(client, RedisCluster):
        await client.aclose()
        for nodes in ("nodes_cache", "startup_nodes"):  # it closes nothing while it is about to ask for the topology
            await client.nodes_manager.aclose(nodes)
        return
    await client.aclose()
    sentinel = getattr(client.connection_pool, "sentinel_manager", None)
    for asked in sentinel.sentinels if sentinel is not None else ():
        await asked.aclose()


def without_password(url: str) -> str:
    """The URL for logs: no user, no password, no options."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def _settings(timeout_s: float, max_connections: int, *, is_unix: bool = False) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "health_check_interval": 0,
        "max_connections": max_connections,
        "decode_responses": False,  # stored bytes may be anything; judged when read
        "protocol": 2,
        "driver_info": None,  # no extra commands at connect
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    if not is_unix:
        settings["socket_keepalive"] = True
    return settings


def _sentinel(parts: SplitResult, options: dict[str, str], settings: dict[str, Any]) -> Redis:
    name, _, db = parts.path.strip("/").partition("/")
    if not name:
        raise ValueError("name the master behind the Sentinels, as in redis+sentinel://host:26379/mymaster")
    tls = _tls(parts, options)
    asking = {name: value for name, value in settings.items() if name != "max_connections"}
    asking["socket_timeout"] = asking["socket_connect_timeout"] = settings["socket_timeout"] / 2
    asking |= {key: options[f"sentinel_{key}"] for key in ("username", "password") if f"sentinel_{key}" in options}
    sentinel = Sentinel(_hosts(parts, 26379), sentinel_kwargs={**asking, **tls}, **settings, **tls)
    return sentinel.master_for(name, db=int(db or options.get("db", 0)), **_login(parts))


def _cluster(parts: SplitResult, options: dict[str, str], settings: dict[str, Any]) -> RedisCluster:
    settings = {name: value for name, value in settings.items() if name != "retry_on_error"}
    settings["retry"] = Retry(NoBackoff(), _CLUSTER_RETRIES)
    nodes = [ClusterNode(host, port) for host, port in _hosts(parts, 6379)]
    # A node that is down must not take the other nodes' sessions with it.
    return RedisCluster(
        startup_nodes=nodes, require_full_coverage=False, **settings, **_login(parts), **_tls(parts, options)
    )


def _login(parts: SplitResult) -> dict[str, Any]:
    user, colon, password = parts.netloc.rpartition("@")[0].partition(":")
    return {name: unquote(value) for name, value in (("username", user), ("password", password)) if value and colon}


def _hosts(parts: SplitResult, default_port: int) -> list[tuple[str, int]]:
    hosts = []
    for text in parts.netloc.rpartition("@")[2].split(","):
        one = urlsplit(f"//{text}")
        if not one.hostname:
            raise ValueError("name at least one host, several with commas between")
        hosts.append((one.hostname, one.port or default_port))
    return hosts


def _tls(parts: SplitResult, options: dict[str, str]) -> dict[str, Any]:
    if not parts.scheme.startswith("rediss"):
        return {}
    tls: dict[str, Any] = {name: options[name] for name in _TLS_OPTIONS if name in options}
    if "ssl_check_hostname" in tls:
        tls["ssl_check_hostname"] = tls["ssl_check_hostname"].lower() in ("1", "true", "yes")
    return {"ssl": True, **tls}
