"""Tells what this machine has and lacks for training, and checks a training step: `python run/doctor.py`."""

from mindspore_floodx.cli.doctor import main
from mindspore_floodx.errors import run_command

run_command(main)
