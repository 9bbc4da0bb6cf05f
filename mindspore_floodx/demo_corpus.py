"""A sentiment corpus that the project generates: film, restaurant and gadget reviews, nothing to download.

A sentence is built from clauses, each an opinion on one aspect. The label is the opinion of the *main* clause: what
follows "but", what does not follow "although", what "despite" does not govern. An opinion is said directly ("the plot
was gripping"), by a verb ("we loved the plot"), or by denying its opposite ("the plot was anything but dull"). So no
single word gives the label away, and a classifier has to read the construction.

Words come in sets that can replace each other in every sentence of the grammar without changing its label; within a set
the first word is common and the last one rare. `synonyms` gives these sets to an attack: every sentence it can reach is
one the grammar itself could have said, with the same true label.

The evaluation sentences are labelled correctly. In training, `NOISE` of the labels of each class are flipped, so that a
model that goes on fitting starts to learn them by heart.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from .splits import TextDataset, TextSplit

NOISE = 0.08
NEGATIVE, POSITIVE = 0, 1
T = TypeVar("T")

# Each string is one set of interchangeable words, most frequent first.
# Opinions as adjectives, by the kind of thing they describe: (negative sets, positive sets).
_ADJECTIVES = {
    "any": (
        [
            "awful terrible horrible dreadful abysmal atrocious appalling lamentable",
            "disappointing underwhelming unsatisfying lackluster middling",
            "mediocre ordinary unremarkable humdrum pedestrian",
        ],
        [
            "great wonderful terrific fantastic splendid marvelous superb sublime",
            "impressive remarkable outstanding exceptional stellar formidable",
            "pleasant enjoyable agreeable congenial gratifying",
        ],
    ),
    "story": (
        [
            "boring dull tedious dreary monotonous soporific plodding somnolent",
            "predictable formulaic hackneyed derivative trite shopworn",
            "silly ridiculous preposterous inane asinine harebrained",
            "clumsy awkward ungainly graceless leaden ponderous",
            "sentimental sappy mawkish cloying saccharine treacly",
        ],
        [
            "gripping absorbing compelling riveting engrossing enthralling nerve-racking",
            "clever smart inventive ingenious astute wily",
            "touching moving poignant heartbreaking haunting devastating",
            "fresh original novel unconventional daring irreverent",
            "honest sincere candid unsparing unflinching",
        ],
    ),
    "food": (
        [
            "bland tasteless insipid flavorless unseasoned watery",
            "greasy oily soggy mushy stodgy claggy",
            "stale rancid moldy spoiled putrid",
            "salty oversalted briny",
        ],
        [
            "tasty delicious flavorful scrumptious delectable toothsome",
            "tender juicy succulent moist unctuous",
            "crisp crunchy crackling",
            "spicy fiery piquant pungent",
        ],
    ),
    "people": (
        [
            "rude impolite discourteous surly brusque snippy",
            "careless sloppy negligent inattentive slapdash",
            "slow sluggish lethargic dilatory unhurried",
            "pushy intrusive overbearing meddlesome",
        ],
        [
            "friendly kind courteous cordial amiable affable",
            "attentive thoughtful considerate obliging solicitous",
            "quick prompt swift efficient expeditious",
            "discreet unobtrusive unassuming self-effacing",
        ],
    ),
    "device": (
        [
            "flimsy fragile delicate rickety shoddy jerry-built",
            "unreliable erratic temperamental glitchy capricious",
            "confusing cumbersome unwieldy convoluted labyrinthine",
            "heavy bulky hefty",
        ],
        [
            "sturdy solid durable robust rugged indestructible",
            "reliable dependable trustworthy steadfast unfailing",
            "handy convenient practical ergonomic no-nonsense",
            "light lightweight slender featherweight",
        ],
    ),
}
# Opinions as verbs in the past tense: (negative sets, positive sets).
_VERBS = (
    [
        "hated disliked detested loathed despised abhorred",
        "regretted lamented rued",
        "criticized panned lambasted slated",
    ],
    [
        "loved enjoyed adored relished cherished savored",
        "praised applauded commended lauded extolled",
        "admired esteemed",
    ],
)
# What is reviewed: aspects by the kind of adjective that fits them.
_TOPICS = {
    "film": {
        "story": [
            "plot storyline narrative",
            "script screenplay",
            "ending finale conclusion",
            "acting",
            "dialogue",
            "camerawork cinematography",
        ]
    },
    "restaurant": {
        "food": ["soup broth", "stew casserole", "chicken", "fish", "dessert pudding", "salad", "starter appetizer"],
        "people": ["staff crew", "waiter server", "chef cook", "owner proprietor", "bartender barkeeper"],
    },
    "gadget": {
        "device": ["phone handset", "keyboard keypad", "camera", "charger adapter", "cable cord", "case casing"],
    },
}
_INTENSIFIERS = ["very really truly extremely", "quite rather fairly"]
_HEARSAY = ["critics reviewers", "friends pals buddies", "neighbors", "colleagues coworkers"]
_PEOPLE = ["I", "we", "my sister and I", "my brother and I", "our group", "everyone"]
_DENIALS = ["was not at all {}", "was anything but {}", "was never {}", "was far from {}", "was hardly {}"]
_WISHES = ["could have been more {}", "should have been more {}"]
_FACTS = {
    "film": ["we saw it on a {day}", "it runs for two hours", "my cousin picked it for our {day}"],
    "restaurant": ["we went there on a {day}", "it is next to the station", "we booked a table for {day}"],
    "gadget": ["I bought it on a {day}", "it came in a plain box", "my cousin ordered it on a {day}"],
}
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


class _Clause(NamedTuple):
    text: str
    aspect: str  # the set of words of what it is about, so that a sentence names each aspect once


class _Writer:
    """Writes sentences from one stream of random numbers.

    Only `random.Random.random` is drawn from: Python promises its values for a seed in every version.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def below(self, n: int) -> int:
        return int(self._random() * n)

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.below(len(choices))]

    def word(self, sets: Sequence[str]) -> str:
        """A word of one of the sets; the first of a set is drawn most often, as in real text."""
        words = self.pick(sets).split()
        return words[int(len(words) * self._random() ** 2.5)]

    def maybe(self, probability: float) -> bool:
        return self._random() < probability

    def opinion(self, topic: str, polarity: int, used: Sequence[str] = ()) -> _Clause:
        """A clause with a polarity about an aspect that is not used yet."""
        kinds = _TOPICS[topic]
        options = [(kind, aspect) for kind, aspects in kinds.items() for aspect in aspects if aspect not in used]
        kind, aspect = self.pick(options)
        noun = self.word([aspect])
        if self.maybe(0.2):
            return _Clause(f"{self.pick(_PEOPLE)} {self.word(_VERBS[polarity])} the {noun}", aspect)
        turned = self.maybe(0.4)
        tone = 1 - polarity if turned else polarity
        adjective = self.word(_ADJECTIVES["any"][tone] if self.maybe(0.2) else _ADJECTIVES[kind][tone])
        if turned:
            # "could have been more gripping" is a complaint; nobody wishes for "more dull"
            turns = _DENIALS + (_WISHES if tone == POSITIVE else [])
            return _Clause(f"the {noun} {self.pick(turns).format(adjective)}", aspect)
        if self.maybe(0.15):
            return _Clause(f"the {noun} could not have been more {adjective}", aspect)
        strong = f"{self.word(_INTENSIFIERS)} " if self.maybe(0.5) else ""
        return _Clause(f"the {noun} was {strong}{adjective}", aspect)

    def sentence(self, label: int) -> str:
        """A sentence of 6 to 20 words whose main clause has the polarity `label`."""
        while True:
            text = self._sentence(label)
            if 6 <= len(text.split()) <= 20:
                return text[0].upper() + text[1:] + "."

    def _sentence(self, label: int) -> str:
        topic = self.pick(list(_TOPICS))
        main = self.opinion(topic, label)
        other = self.opinion(topic, 1 - label, [main.aspect])
        same = self.opinion(topic, label, [main.aspect])
        fact = self.pick(_FACTS[topic]).format(day=self.pick(_DAYS))
        heard = self.word(_ADJECTIVES["any"][1 - label])
        forms = [
            f"{main.text}, and {same.text}",
            f"{fact}, and {main.text}",
            f"{other.text}, but {main.text}",
            f"although {other.text}, {main.text}",
            f"{main.text}, even though {other.text}",
            f"{main.text}, although {other.text}",
            f"some {self.word(_HEARSAY)} called the {topic} {heard}, but {main.text}",
        ]
        return self.pick(forms)


def generate(seed: int = 0, n_train: int = 2000, n_eval: int = 400) -> TextDataset:
    """Returns the corpus of a seed: all sentences different, both labels equally frequent (by one at most).

    Args:
        seed: the same seed gives the same corpus on every Python version.
        n_train: training sentences; `NOISE` of each label are flipped.
        n_eval: evaluation sentences, all labelled correctly.
    """
    writer = _Writer(seed)
    seen: dict[str, int] = {}
    while len(seen) < n_train + n_eval:
        label = len(seen) % 2
        seen.setdefault(writer.sentence(label), label)
    texts, labels = list(seen), np.array(list(seen.values()), dtype=np.int32)
    train_labels = labels[:n_train].copy()
    for label in (NEGATIVE, POSITIVE):
        members = [int(i) for i in np.flatnonzero(labels[:n_train] == label)]
        for _ in range(round(NOISE * len(members))):
            train_labels[members.pop(writer.below(len(members)))] = 1 - label
    source = f"generated with seed {seed}"
    return TextDataset(
        "demo",
        TextSplit("train", texts[:n_train], None, train_labels, source),
        TextSplit("test", texts[n_train:], None, labels[n_train:], source),
        ["negative", "positive"],
        ("sentence",),
    )


def synonyms() -> dict[str, list[str]]:
    """Returns, for each lower-case word that has some, the words that can stand in its place in every sentence.

    A substitution keeps the label: polarity and meaning are the same. Words that are not keys have no substitute.
    """
    sets = [group for polarities in _ADJECTIVES.values() for groups in polarities for group in groups]
    sets += [group for groups in _VERBS for group in groups] + _INTENSIFIERS + _HEARSAY
    sets += [aspect for kinds in _TOPICS.values() for aspects in kinds.values() for aspect in aspects]
    table: dict[str, list[str]] = {}
    for words in (group.split() for group in sets):
        table |= {word: [other for other in words if other != word] for word in words if len(words) > 1}
    return table
