"""How a conversation is spelled on the wire: nothing here knows a socket."""
