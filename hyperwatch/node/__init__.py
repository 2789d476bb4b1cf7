"""What a Hyperliquid node writes. Pure: no trio, no sockets, no clock, no files."""
