"""What hyperwatch is compared with: the least that any server would have to do, and what it replaces."""
