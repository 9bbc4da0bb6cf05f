"""What the page shows, as HTML: every text that is not this module's own is escaped."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from ..attack_metrics import FAILED, SKIPPED, SUCCEEDED
from ..reproduce.word_changes import word_changes
from .history import Picture
from .live_attack import FINISHED, REFUSED, RUNNING, WAITING, LiveAttack, OneAttack
from .models import PlayModel, Prediction

CLASSES_SHOWN = 5  # of each model, where there are more


def heading(models: Sequence[PlayModel]) -> Markup:
    """The page's title, and what each model is."""
    items = Markup("").join(
        Markup("<li><b>{}</b>{}</li>").format(model.title, f": {model.about}" if model.about else "")
        for model in models
    )
    return Markup('<h1 class="fx-title">MindSpore-FloodX playground</h1><ul class="fx-models">{}</ul>').format(items)


def sentence(text: str) -> Markup:
    """A sentence to the visitor."""
    return Markup('<p class="fx-say" role="status">{}</p>').format(text)


def prediction_table(models: Sequence[PlayModel], predictions: Sequence[Prediction]) -> Markup:
    """The models side by side: in each column the answer, and below it the probability of each class.

    Of more than `CLASSES_SHOWN` classes the likeliest of each model are shown.
    """
    labels, probabilities = models[0].labels, [each.probabilities for each in predictions]
    shown = {place for each in probabilities for place in each.argsort()[::-1][:CLASSES_SHOWN].tolist()}
    best = [int(each.argmax()) for each in probabilities]
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(model.title) for model in models)
    answers = Markup("").join(
        Markup('<td class="fx-answer"><b>{}</b> {}</td>').format(labels[top], percent(each[top]))
        for top, each in zip(best, probabilities, strict=True)
    )
    rows = [Markup('<tr><th scope="row">answer</th>{}</tr>').format(answers)]
    for place in sorted(shown):
        cells = Markup("").join(
            Markup('<td><span class="fx-bar"><i style="width: {:.1f}%"></i></span>{}</td>').format(
                100 * float(each[place]), percent(each[place])
            )
            for each in probabilities
        )
        rows.append(Markup('<tr><th scope="row">{}</th>{}</tr>').format(labels[place], cells))
    notes = dict.fromkeys(
        f"Only the first {each.tokens_read:,} of the {each.tokens:,} tokens are read: the models take no more."
        for each in predictions
        if each.tokens_read < each.tokens
    )
    table = Markup('<div class="fx-scroll"><table class="fx-table"><thead><tr><td></td>{}</tr></thead><tbody>{}')
    return table.format(head, Markup("").join(rows)) + Markup("</tbody></table></div>{}").format(
        Markup("").join(sentence(note) for note in notes)
    )


def percent(share: float) -> str:
    """A probability such as 98.2%; what only rounding would make certain or impossible is said to be less so."""
    if 0.9995 <= share < 1:
        return ">99.9%"
    return "<0.1%" if 0 < share < 0.0005 else f"{100 * share:.1f}%"


def attack_cards(live: LiveAttack, before: int) -> Markup:
    """An attack as it stands, a card for each model.

    Args:
        before: attacks that come first.
    """
    cards = Markup("").join(
        Markup('<article class="fx-card"><h3>{}</h3>{}</article>').format(part.model.title, _card(live, part, before))
        for part in live.parts
    )
    return Markup('<h2 class="fx-part">Attack: {}</h2><div class="fx-cards">{}</div>').format(live.name, cards)


def _card(live: LiveAttack, part: OneAttack, before: int) -> Markup:
    counter = Markup('<p class="fx-count"><b>{:,}</b> {}</p>').format(
        part.queries, "query" if part.queries == 1 else "queries"
    )
    if part.state != FINISHED:
        return Markup('<p class="fx-outcome fx-{}" role="status">{}</p>{}').format(
            part.state, _unfinished(live, part, before), counter
        )
    assert part.record is not None
    record, names = part.record, part.model.names
    kind, said = {
        SUCCEEDED: ("fooled", "Fooled"),
        FAILED: ("held", "Held: no change that the attack may make turns the answer"),
        SKIPPED: ("wrong", f"Wrong already, without an attack: the true class is {names[record['label']]}"),
    }[record["result"]]
    outcome = Markup('<p class="fx-outcome fx-{}" role="status">{}</p>').format(kind, said)
    first = _answer(names, record["original_output"], record["original_scores"])
    last = _answer(names, record["perturbed_output"], record["perturbed_scores"])
    if record["result"] == SKIPPED:
        return outcome + counter + Markup('<p class="fx-turn">{}</p>').format(first)
    changed = record["num_words_changed"]
    texts = Markup("").join(
        Markup('<p class="fx-text">{}</p>').format(marked_words(original, perturbed, changed))
        for original, perturbed in zip(record["original"].values(), record["perturbed"].values(), strict=True)
    )
    best = "" if record["result"] == SUCCEEDED else "Its best attempt: "
    return (
        outcome
        + counter
        + Markup('<p class="fx-turn">{} → {}</p>').format(first, last)
        + texts
        + Markup('<p class="fx-note">{}{} of {} words changed</p>').format(best, changed, record["num_words"])
    )


def _unfinished(live: LiveAttack, part: OneAttack, before: int) -> str:
    if part.state == REFUSED:
        return part.reason
    if part.state == RUNNING:
        return "Stopping" if live.stopped.is_set() else "Running"
    if part.state == WAITING:
        ahead = "another attack" if before == 1 else f"{before} other attacks"
        return f"Waiting for {ahead}" if before else "Waiting"
    return "Stopped"


def _answer(names: Sequence[str], place: int, scores: Sequence[float]) -> Markup:
    return Markup("<b>{}</b> {}").format(names[place], percent(scores[place]))


def marked_words(original: str, perturbed: str, changed: int | None = None) -> Markup:
    """The text with what an attack took out struck through, and what it put in beside it.

    Args:
        changed: how many words the attack says it changed, see `word_changes`.
    """
    units = original.encode("utf-16-le", "surrogatepass")  # in which word_changes counts

    def piece(start: int, end: int) -> str:
        return units[2 * start : 2 * end].decode("utf-16-le", "surrogatepass")

    marked, place = Markup(""), 0
    for start, end, new in word_changes(original, perturbed, changed):
        marked += escape(piece(place, start))
        if start < end:
            marked += Markup("<del>{}</del>").format(piece(start, end))
        if new:
            marked += Markup("<ins>{}</ins>").format(new)
        place = end
    return marked + escape(piece(place, len(units) // 2))


def history_html(models: Sequence[PlayModel], histories: Sequence[tuple[list[Picture], str]]) -> Markup:
    """The pictures of each model's training, one below the other."""
    image = Markup(
        '<div class="fx-scroll"><img class="fx-light" src="{0}" alt="{2}"/>'
        '<img class="fx-dark" src="{1}" alt="{2}"/></div>'
    )
    parts = Markup("")
    for model, (pictures, why_not) in zip(models, histories, strict=True):
        parts += Markup('<h3 class="fx-run">{}</h3>').format(model.title)
        for picture in pictures:
            parts += image.format(picture.light, picture.dark, f"{model.title}: {picture.what}")
        if why_not:
            parts += sentence(why_not)
    return Markup('<h2 class="fx-part">How they were trained</h2>{}').format(parts)
