"""This process: its memory, its log, its open files, and how it ends."""
