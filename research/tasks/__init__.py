"""Tasks, a file each: how examples are encoded, the head and its loss, and how outputs become predictions."""
