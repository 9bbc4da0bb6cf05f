"""Attacks that can be watched and stopped: one at a time, in the order in which they were asked for.

TextAttack replaces functions of its own while it works, and draws from the random numbers of the whole process; two
attacks in one process would disturb each other. So all of them go through one thread.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ..attack_catalogue import NAMES
from ..attack_job import Example, attack_example
from ..attack_pool import describe_failure
from ..attack_recipes import AttackSettings, build_attack, check_settings
from ..attack_source import choose_attackable
from ..errors import UserError
from .models import PlayModel

MAX_WORDS = 500  # of both texts together: TextAttack makes a text without each word before it asks for anything
QUERIES_AT_ONCE = 32  # between two such batches an attack looks whether it was stopped, and others' texts are answered
PREFERRED = ("deepwordbug", "synonym")  # the first of them that is there is chosen at first; neither has downloads
_COLUMNS = ("text", "text_pair")
_BUILT_KEPT = 4  # attacks that are kept with their resources: some hold hundreds of megabytes

WAITING, RUNNING, FINISHED, STOPPED, REFUSED = "waiting", "running", "finished", "stopped", "refused"


def offered(**options: Any) -> list[AttackSettings]:
    """Returns the attacks whose resources are on this machine, the first of `PREFERRED` at the front.

    Args:
        options: `resources`, `neighbours`, `masked_lm` and `max_candidates`, see `attack_recipes.AttackSettings`.

    Raises:
        UserError: options that are wrong for every attack.
    """
    check_settings(AttackSettings("synonym", **options))
    if options.get("neighbours") is not None:
        from ..attack_standin import read_neighbours

        read_neighbours(options["neighbours"])
    found = []
    for name in sorted(NAMES, key=lambda name: PREFERRED.index(name) if name in PREFERRED else len(PREFERRED)):
        settings = AttackSettings(name, **options)
        try:
            check_settings(settings)
        except UserError:
            continue
        found.append(settings)
    return found


class Stopped(Exception):
    """The attack was told to stop."""


@dataclass(eq=False)
class OneAttack:
    """The attack on one of the models.

    Attributes:
        model: the attacked one.
        state: WAITING, RUNNING, FINISHED, STOPPED or REFUSED.
        record: of a finished attack, see `attack_job.attack_example`.
        reason: why it was refused.
    """

    model: PlayModel
    state: str = WAITING
    record: dict[str, Any] | None = None
    reason: str = ""
    victim: _Watched | None = None
    _last: int = 0

    @property
    def queries(self) -> int:
        """Texts that the model has answered so far, counted as TextAttack counts them."""
        return self._last if self.victim is None else self.victim.queries

    def end(self, state: str, record: dict[str, Any] | None = None, reason: str = "") -> None:
        """Keeps the outcome, and how many queries there were."""
        self._last = self.queries if record is None else record["queries"]
        self.victim, self.record, self.reason, self.state = None, record, reason, state


@dataclass(eq=False)
class LiveAttack:
    """What a visitor asked for: an attack on each model in turn, on the same texts."""

    name: str
    texts: tuple[str, ...]
    parts: list[OneAttack]
    stopped: threading.Event = field(default_factory=threading.Event)
    future: Future[None] | None = None

    @property
    def done(self) -> bool:
        """Whether nothing more will happen."""
        return self.future is not None and self.future.done()

    def stop(self) -> None:
        """Ends it at the next batch of queries; one that still waits ends at once."""
        self.stopped.set()
        if self.future is not None and self.future.cancel():
            for part in self.parts:
                part.end(STOPPED)


class Attacker:
    """Attacks models on demand, one after the other; a context that leaves none running.

    Args:
        models: all are attacked, in turn.
        attacks: those that can be asked for, see `offered`.
    """

    def __init__(self, models: Sequence[PlayModel], attacks: Sequence[AttackSettings]) -> None:
        self.models, self.attacks = list(models), {settings.attack: settings for settings in attacks}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="attack")
        self._live: list[LiveAttack] = []  # those not done yet, the running one first
        self._guard = threading.Lock()
        self._built = functools.lru_cache(_BUILT_KEPT)(self._build)

    def __enter__(self) -> Attacker:
        return self

    def __exit__(self, *error: object) -> None:
        with self._guard:
            live = list(self._live)
        for each in live:
            each.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def start(self, name: str, texts: tuple[str, ...], true_class: int | None = None) -> LiveAttack:
        """Puts an attack at the end of the queue.

        Args:
            name: of one of `attacks`.
            texts: see `models.check_texts`.
            true_class: in the page's order; None takes each model's own answer for true.

        Raises:
            UserError: there is no such attack here, or the texts are too long to be attacked.
        """
        if name not in self.attacks:
            raise UserError(f"The attack {name!r} is not offered here; choose one of {', '.join(self.attacks)}.")
        if (words := sum(len(text.split()) for text in texts)) > MAX_WORDS:
            raise UserError(f"An attack takes at most {MAX_WORDS:,} words, and these are {words:,}; shorten the text.")
        live = LiveAttack(name, texts, [OneAttack(model) for model in self.models])
        with self._guard:
            self._live.append(live)
            live.future = self._pool.submit(self._run, live, true_class)
        live.future.add_done_callback(lambda future: self._forget(live))
        return live

    def before(self, live: LiveAttack) -> int:
        """Returns how many attacks come before this one."""
        with self._guard:
            return self._live.index(live) if live in self._live else 0

    def _forget(self, live: LiveAttack) -> None:
        with self._guard:
            self._live.remove(live)

    def _run(self, live: LiveAttack, true_class: int | None) -> None:
        for number, part in enumerate(live.parts):
            try:
                if live.stopped.is_set():
                    raise Stopped
                part.state = RUNNING
                built = self._built(live.name, number, len(live.texts))
                part.victim = built.goal_function.model
                part.victim.watch(built.goal_function, live.stopped)
                label = part.victim.answer(live.texts) if true_class is None else part.model.order[true_class]
                example = Example(0, live.texts, label)
                record = attack_example(built, example, seed=0, columns=_COLUMNS[: len(live.texts)])
                part.end(FINISHED, record)
            except Stopped:
                part.end(STOPPED)
            except UserError as error:
                part.end(REFUSED, reason=str(error))
            except Exception as error:  # of any recipe, on any text
                part.end(REFUSED, reason=f"The attack failed: {describe_failure(error)}")

    def _build(self, name: str, number: int, texts: int) -> Any:
        model = self.models[number]
        columns = model.columns if model.columns is not None and len(model.columns) == texts else _COLUMNS[:texts]
        return build_attack(self.attacks[name], _Watched(model), choose_attackable(None, columns))


class _Watched:
    """A victim that is asked in small batches, between which it may be told to stop, and whose queries are counted."""

    def __init__(self, model: PlayModel) -> None:
        self._victim, self._lock = model.victim, model.lock
        self._goal: Any = None
        self._stopped, self._ahead = threading.Event(), 0

    def __getattr__(self, name: str) -> Any:  # model, tokenizer, forget and the like
        return getattr(self._victim, name)

    def watch(self, goal: Any, stopped: threading.Event) -> None:
        """Counts the queries of `goal`, a goal function of TextAttack, from 0, until `stopped`."""
        goal.num_queries, self._goal, self._stopped, self._ahead = 0, goal, stopped, 0

    @property
    def queries(self) -> int:
        """Texts answered: those that TextAttack has counted, without those of its last call that are still to come."""
        return 0 if self._goal is None else max(0, self._goal.num_queries - self._ahead)

    def answer(self, texts: tuple[str, ...]) -> int:
        """Returns the model's class for the texts, in its own order; not counted."""
        return int(self([texts if len(texts) == 2 else texts[0]])[0].argmax())

    def get_grad(self, *arguments: Any) -> Any:
        """The victim's gradients, as the recipes that are no black-box attacks ask for them."""
        if self._stopped.is_set():
            raise Stopped
        with self._lock:
            return self._victim.get_grad(*arguments)

    def __call__(self, texts: list[Any]) -> Any:
        """Returns the logits, [len(texts), labels] float32.

        Raises:
            Stopped: the visitor wants no more.
        """
        import torch

        parts = []
        for start in range(0, len(texts), QUERIES_AT_ONCE):
            self._ahead = len(texts) - start
            if self._stopped.is_set():
                raise Stopped
            with self._lock:
                parts.append(self._victim(texts[start : start + QUERIES_AT_ONCE]))
        self._ahead = 0
        return torch.cat(parts)
