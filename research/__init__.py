"""Fine-tune transformers, with numbers that can stand in a paper."""

__version__ = "0.1.0"
