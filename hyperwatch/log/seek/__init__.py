"""Where reading begins: by a cursor, a time, a block, or at the newest complete line. Blocking I/O."""
