"""The whole job on a generated corpus, with nothing to download: `python run/demo.py`."""

from mindspore_floodx.cli.demo import main
from mindspore_floodx.errors import run_command

run_command(main)
