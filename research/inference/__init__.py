"""Use a finished run: evaluate it again, predict, prepare what runs need."""
