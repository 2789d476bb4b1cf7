"""Who gets the log: subscriptions, and the connections that hold them."""
