"""How conversations reach the pipelines, and where they are kept."""

from .asgi import AsgiApp
from .client import WebSocketClient
from .client_open import ConnectionFailed
from .endpoints import ClientInput, ClientOutput
from .limits import Limits
from .memory import MemoryTransport
from .mirror import Mirror
from .serializer import OrchestrateSerializer
from .store_embedded import EmbeddedRedis, open_store
from .store_memory import MemoryStore
from .store_redis import RedisStore
from .tokens import TokenKey
from .websocket import WebSocketServer
from .wire import Wire

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
