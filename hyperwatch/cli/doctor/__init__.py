"""`hyperwatch doctor`: looks at a real setup."""
