"""Streams computed from what a node writes. Pure."""
