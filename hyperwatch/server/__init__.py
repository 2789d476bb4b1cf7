"""The server: connections, frames, HTTP, and who may come in."""
