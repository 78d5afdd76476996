"""How a frame moves: processors, the routes between them, their tasks, and what is private of Pipecat's."""
