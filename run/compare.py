"""Compares runs: `python run/compare.py runs/mrpc-finetune-0 runs/mrpc-flooding-0`."""

from mindspore_floodx.cli.compare import main
from mindspore_floodx.errors import run_command

run_command(main)
