"""Services that do as they are told: recogniser, branches, LLM, voice."""
