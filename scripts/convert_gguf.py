"""Convert a GGUF file to a model folder in the hub's form, in bfloat16. Usage: convert_gguf.py FILE.gguf FOLDER"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers import logging as transformers_logging


def convert(source: Path, folder: Path) -> None:
    """Write weights, config, tokenizer and chat template."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    model: Any = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    del model.config.quantization_config  # its weights are plain now
    model.hf_quantizer = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
