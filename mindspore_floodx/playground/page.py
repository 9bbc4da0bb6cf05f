"""The page itself, in Gradio: what is on it, and what happens when somebody types, picks, attacks or stops."""

import asyncio
import os
import uuid
import warnings
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from ..attack_recipes import STANDIN, AttackSettings, describe_resources
from ..errors import UserError
from . import view
from .examples import Picked
from .history import draw_history
from .live_attack import Attacker, LiveAttack
from .models import MAX_WORDS, PlayModel, check_texts, predict

WATCHED_EVERY = 0.15  # seconds
ATTACKS_WATCHED = 32  # attacks that run or wait at once; more wait in Gradio's queue
_OWN_ANSWER = -1  # of the list of true classes
_STYLE = Path(__file__).with_name("page.css")


def import_gradio() -> Any:
    """Returns the package gradio, with everything switched off that it would send anywhere.

    Raises:
        UserError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read at import and at every event
    try:
        import gradio
    except ImportError as error:
        raise UserError(
            f"the playground needs the package {error.name}; pip install -c constraints.txt -e .[playground]"
        ) from None
    # of its use of the packages below it, which a visitor's terminal has no need of
    warnings.filterwarnings("ignore", module=r"gradio\..*")
    return gradio


def build_page(models: Sequence[PlayModel], attacker: Attacker, examples: Sequence[Picked], note: str = "") -> Any:
    """Returns the page, a `gradio.Blocks`.

    Nothing of one visitor is kept where another could see it: a visitor's running attack is known by the random name
    that Gradio gives to each open tab.

    Args:
        models: those of `models.open_models`.
        attacker: attacks the same models.
        examples: sentences to pick.
        note: says why there are none.
    """
    gr = import_gradio()
    running: dict[str, LiveAttack] = {}  # by the visitor's tab
    columns, labels = models[0].columns, models[0].labels

    def classify(first: str | None, second: str | None) -> str:
        try:
            texts = check_texts(first or "", second or "", columns)  # None: a hidden box
        except UserError as error:
            return view.sentence(str(error))
        return view.prediction_table(models, [predict(model, texts) for model in models])

    async def attack(
        name: str,
        first: str | None,
        second: str | None,
        true_class: int,
        request: gr.Request,  # type: ignore[name-defined]
    ) -> AsyncIterator[dict[Any, Any]]:
        buttons = {start: gr.Button(interactive=True), stop: gr.Button(interactive=False)}
        try:
            texts = check_texts(first or "", second or "", columns)  # None: a hidden box
            live = attacker.start(name, texts, None if true_class == _OWN_ANSWER else true_class)
        except UserError as error:
            yield {attacked: view.sentence(str(error)), **buttons}
            return
        visitor = request.session_hash or uuid.uuid4().hex
        if visitor in running:
            running[visitor].stop()
        running[visitor] = live
        try:
            yield {start: gr.Button(interactive=False), stop: gr.Button(interactive=True)}
            seen = None
            while not live.done:
                shown = view.attack_cards(live, attacker.before(live))
                if shown != seen:
                    yield {attacked: shown}
                    seen = shown
                await asyncio.sleep(WATCHED_EVERY)
            yield {attacked: view.attack_cards(live, 0), **buttons}
        finally:  # also where the visitor has gone
            live.stop()
            if running.get(visitor) is live:
                del running[visitor]

    def end(request: gr.Request) -> None:  # type: ignore[name-defined]
        if (live := running.get(request.session_hash or "")) is not None:
            live.stop()

    def choose(place: int | None) -> tuple[Any, ...]:
        if place is None:
            return gr.skip(), gr.skip(), gr.skip()
        example = examples[place]
        return example.texts[0], example.texts[1] if len(example.texts) == 2 else "", example.true_class

    with gr.Blocks(title="MindSpore-FloodX playground", analytics_enabled=False) as page:
        gr.HTML(view.heading(models))
        with gr.Row(elem_classes="fx-input"):
            with gr.Column(scale=2, min_width=280):
                picked = gr.Dropdown(
                    [(example.short, place) for place, example in enumerate(examples)],
                    value=None,
                    label="Pick a sentence of the evaluation set",
                    visible=bool(examples),
                    elem_id="pick",
                )
                names = columns or ("text", "second text, if there is one")
                first = gr.Textbox(
                    label=names[0],
                    lines=3,
                    max_lines=10,
                    placeholder=f"Type up to {MAX_WORDS:,} words",
                    elem_id="first",
                )
                second = gr.Textbox(label=names[-1], lines=3, max_lines=10, visible=len(names) == 2, elem_id="second")
            with gr.Column(scale=1, min_width=280):
                recipe = gr.Dropdown(
                    [(_title(settings), name) for name, settings in attacker.attacks.items()],
                    value=next(iter(attacker.attacks)),
                    label="Attack",
                    elem_id="recipe",
                )
                truth = gr.Dropdown(
                    [("each model's own answer", _OWN_ANSWER), *zip(labels, range(len(labels)), strict=True)],
                    value=_OWN_ANSWER,
                    label="True class",
                    elem_id="truth",
                )
                with gr.Row():
                    start = gr.Button("Attack", variant="primary", min_width=100, elem_id="attack")
                    stop = gr.Button("Stop", interactive=False, min_width=100, elem_id="stop")
        gr.HTML(view.sentence(note), visible=bool(note))
        answers = gr.HTML("", elem_id="answers")
        attacked = gr.HTML("", elem_id="attacked")
        gr.HTML(view.history_html(models, [draw_history(model.run) for model in models]), elem_id="history")

        quiet: Any = {"show_progress": "hidden", "api_visibility": "private"}
        # Without the queue: its stream of events closes after each one, and an event that begins in that moment, as
        # fast typing makes them, may get no answer.
        at_once = {**quiet, "queue": False}
        gr.on(
            [first.change, second.change],
            classify,
            [first, second],
            answers,
            trigger_mode="always_last",
            **at_once,
        )
        page.load(classify, [first, second], answers, **at_once)  # of what was typed before the page listened
        picked.change(choose, picked, [first, second, truth], **at_once)
        start.click(
            attack,
            [recipe, first, second, truth],
            [attacked, start, stop],
            concurrency_limit=ATTACKS_WATCHED,
            **quiet,
        )
        stop.click(end, **at_once)
    return page


def style() -> str:
    """Returns the page's style sheet."""
    return _STYLE.read_text(encoding="utf-8")


def _title(settings: AttackSettings) -> str:
    return settings.attack + (" (stand-ins)" if describe_resources(settings)["resources"] == STANDIN else "")
