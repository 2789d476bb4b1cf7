"""The node's files as one log: read from any cursor, or at its head."""
