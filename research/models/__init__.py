"""Load pretrained models and feed them packed or padded rows."""
