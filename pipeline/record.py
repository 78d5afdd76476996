"""`ConversationRecord`, under the path that documentation and bots name; it lives in `conversation`."""

from .conversation.conversation_record import ConversationRecord as ConversationRecord
