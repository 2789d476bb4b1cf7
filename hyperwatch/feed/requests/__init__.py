"""Requests: clients' messages parsed, and their answers. Pure."""
