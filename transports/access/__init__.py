"""Who may come in, and how much of everything: nothing here knows a socket."""
