"""What is kept of what could not be delivered or read, and where the heads were. Blocking I/O."""
