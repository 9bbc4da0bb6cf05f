"""Measures the loss under noise on the word embeddings: `python run/smoothness.py RUN [RUN ...]`."""

from mindspore_floodx.cli.smoothness import main
from mindspore_floodx.errors import run_command

run_command(main)
