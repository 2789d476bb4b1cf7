"""What is drawn on a terminal, and how it is written there."""
