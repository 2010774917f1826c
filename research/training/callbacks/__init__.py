"""Lightning callbacks, a file each."""
