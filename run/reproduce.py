"""Runs a grid and writes the paper's tables and figures: `python run/reproduce.py --device GPU`."""

from mindspore_floodx.cli.reproduce import main
from mindspore_floodx.errors import run_command

run_command(main)
