"""Trains with flooding at many levels: `python run/sweep.py --dataset sst2 --levels 0.01 0.10 0.01`."""

from mindspore_floodx.cli.sweep import main
from mindspore_floodx.errors import run_command

run_command(main)
