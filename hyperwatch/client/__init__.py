"""A client of the feed."""

from hyperwatch.client.connection import Answer, Client, FeedError, LossError, Message, complete, connect

__all__ = ["Answer", "Client", "FeedError", "LossError", "Message", "complete", "connect"]
