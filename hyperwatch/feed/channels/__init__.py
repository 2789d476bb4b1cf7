"""Channels: what a subscription makes of the log, entries in and messages out. Pure."""
