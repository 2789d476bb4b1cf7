"""The operator's views: health, status, metrics, log report, and a page for people."""
