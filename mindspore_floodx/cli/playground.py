"""The command behind run/playground.py: a local page on which models answer and are attacked."""

from __future__ import annotations

import argparse
import sys
import webbrowser
from collections.abc import Sequence

from ..attack_recipes import BERT_ATTACK_CANDIDATES
from ..errors import sigterm_raises

EXAMPLES = """\
examples:
  # one model, with the attacks that need no download
  %(prog)s runs/demo/flooding --resources standin

  # two side by side, with sentences of their evaluation set to pick
  %(prog)s runs/sst2-finetune-0 runs/sst2-flooding-0 --data-dir DATA

  # TextFooler on stand-in resources as well
  %(prog)s runs/sst2-finetune-0 --resources standin --neighbours neighbours.json

The page can be reached from this machine alone. Ctrl-C ends it.
"""


def parser() -> argparse.ArgumentParser:
    """Returns the command's options."""
    options = argparse.ArgumentParser(
        prog="playground.py",
        description="Opens a page in the browser: type a sentence, see what each model says, attack it and watch.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = options.add_argument
    add("runs", nargs="+", metavar="RUN", help="one or two run folders or exported model folders")
    add("--port", type=int, default=7860, metavar="N", help="of the page (default 7860; 0: any that is free)")
    add("--no-browser", action="store_true", help="only print the page's address")
    add("--resources", default="official", metavar="official|standin", help="of the attacks (default: official)")
    add("--neighbours", metavar="FILE", help="stand-in for word vectors: JSON, word -> list of near words")
    add("--masked-lm", metavar="FOLDER", help="masked language model of bertattack and bae")
    add("--max-candidates", type=int, default=BERT_ATTACK_CANDIDATES, metavar="K", help="of bertattack (default 48)")
    add("--dataset", help="whose sentences can be picked; by default what the run was trained with")
    add("--data-dir", metavar="DIR", help="folder with the data sets in their official layouts")
    add("--threads", type=int, default=1, metavar="N", help="CPU threads of the models (default 1)")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Serves the page until it is stopped."""
    given = parser().parse_args(argv)
    from ..playground import server

    with sigterm_raises(), server.bind(given.port) as held:  # before what takes seconds
        return _serve(given, held)


def _serve(given: argparse.Namespace, held: object) -> int:
    from ..playground import server
    from ..playground.examples import load_examples
    from ..playground.live_attack import Attacker, offered
    from ..playground.models import open_models
    from ..playground.page import build_page, import_gradio

    import_gradio()
    attacks = offered(
        resources=given.resources,
        neighbours=given.neighbours,
        masked_lm=given.masked_lm,
        max_candidates=given.max_candidates,
    )
    models = open_models(given.runs, given.threads)
    examples, note = load_examples(models, given.dataset, given.data_dir)
    if note:
        print(note, file=sys.stderr)
    with Attacker(models, attacks) as attacker:
        serving = server.make_server(build_page(models, attacker, examples, note))
        address = f"http://{server.HOST}:{held.getsockname()[1]}"  # type: ignore[attr-defined]
        print(f"the playground is on {address}; Ctrl-C ends it", flush=True)
        if not given.no_browser:
            webbrowser.open(address)
        serving.run(sockets=[held])
    return 0
