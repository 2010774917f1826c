"""What becomes of a finished run: an exported folder, and an HTTP service."""
