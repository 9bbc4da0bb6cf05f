"""Measures gradient accordance: `python run/accordance.py runs/sst2-floodingx-0`."""

from mindspore_floodx.cli.accordance import main
from mindspore_floodx.errors import run_command

run_command(main)
