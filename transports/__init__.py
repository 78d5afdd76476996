"""How conversations reach the pipelines, and where they are kept."""

from .client import WebSocketClient
from .client_open import ConnectionFailed
from .endpoints import ClientInput, ClientOutput
from .memory import MemoryTransport
from .mirror import Mirror
from .store_embedded import EmbeddedRedis, open_store
from .store_memory import MemoryStore
from .store_redis import RedisStore
from .websocket import WebSocketServer
from .wire import Wire

__all__ = [
    "ClientInput",
    "ClientOutput",
    "ConnectionFailed",
    "EmbeddedRedis",
    "MemoryStore",
    "MemoryTransport",
    "Mirror",
    "RedisStore",
    "WebSocketClient",
    "WebSocketServer",
    "Wire",
    "open_store",
]
