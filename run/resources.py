"""What the attacks need besides code: `python run/resources.py list`, `fetch`, `import SOURCE`, `pack FILE.zip`."""

from mindspore_floodx.cli.resources import main
from mindspore_floodx.errors import run_command

run_command(main)
