"""How conversations reach the pipelines, and where they are kept."""

from .access.limits import Limits
from .access.token_key import TokenKey
from .client.client import WebSocketClient
from .client.opening import ConnectionFailed
from .dialects.serializer import OrchestrateSerializer
from .memory import MemoryTransport
from .playout.input import ClientInput
from .playout.output import ClientOutput
from .playout.wire import Wire
from .server.asgi.asgi import AsgiApp
from .server.websocket import WebSocketServer
from .state.embedded_redis import EmbeddedRedis, open_store
from .state.memory_store import MemoryStore
from .state.mirror import Mirror
from .state.redis_store import RedisStore

__all__ = [
    "AsgiApp",
    "ClientInput",
    "ClientOutput",
    "ConnectionFailed",
    "EmbeddedRedis",
    "Limits",
    "MemoryStore",
    "MemoryTransport",
    "Mirror",
    "OrchestrateSerializer",
    "RedisStore",
    "TokenKey",
    "WebSocketClient",
    "WebSocketServer",
    "Wire",
    "open_store",
]
