"""The service: which nursery owns what, in which order things start and end."""
