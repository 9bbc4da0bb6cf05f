"""Checks data and prints its statistics: `python run/data.py --stats --dataset all --data-dir DATA`."""

from mindspore_floodx.cli.data import main
from mindspore_floodx.errors import run_command

run_command(main)
