"""What is kept of a conversation, resumed from it, told of it and measured."""
