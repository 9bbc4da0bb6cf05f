"""Opens a local page to try and attack trained models: `python run/playground.py RUN [RUN]`."""

from mindspore_floodx.cli.playground import main
from mindspore_floodx.errors import run_command

run_command(main)
