"""The recipes of TextAttack 0.3.11 by name: what each needs, what stands in for it, and which cannot be run here."""

from __future__ import annotations

from dataclasses import dataclass

from . import attack_resources as needs
from .errors import UserError, nearest


@dataclass(frozen=True)
class Recipe:
    """A published recipe: its class in TextAttack and what it needs under each choice of resources."""

    module: str
    name: str
    official: tuple[needs.Resource, ...]
    standin: tuple[needs.Resource, ...] | None  # None: there are no stand-ins for it
    standin_texts: tuple[str, ...] = ()  # what replaces what, as reported with the results
    has_neighbours: bool = False
    has_masked_lm: bool = False  # bert-base-uncased, or what --masked-lm names


_NEIGHBOUR_TEXT = "neighbour lists in the place of counter-fitted vectors (the word-distance constraint is implied)"
_ENCODER_TEXT = "a MiniLM sentence encoder in the place of the Universal Sentence Encoder, same thresholds and windows"
_MASKED_LM_TEXT = "the masked language model given by --masked-lm"

# Every `StopwordModification()` without a list of its own reads NLTK's; of those only the built-in list stands in.
RECIPES = {
    "textfooler": Recipe(
        "textfooler_jin_2019",
        "TextFoolerJin2019",
        (needs.VECTORS, needs.TAGGER, needs.TAGSET, needs.SENTENCE_ENCODER),
        (needs.TAGGER, needs.TAGSET),
        (_NEIGHBOUR_TEXT, _ENCODER_TEXT),
        has_neighbours=True,
    ),
    "textbugger": Recipe(
        "textbugger_li_2018",
        "TextBuggerLi2018",
        (needs.STOPWORDS, needs.VECTORS, needs.SENTENCE_ENCODER),
        (),
        (_NEIGHBOUR_TEXT, _ENCODER_TEXT),
        has_neighbours=True,
    ),
    "bertattack": Recipe(
        "bert_attack_li_2020",
        "BERTAttackLi2020",
        (needs.STOPWORDS, needs.SENTENCE_ENCODER),
        (),
        (_ENCODER_TEXT, _MASKED_LM_TEXT),
        has_masked_lm=True,
    ),
    "deepwordbug": Recipe("deepwordbug_gao_2018", "DeepWordBugGao2018", (needs.STOPWORDS,), ()),
    "pwws": Recipe("pwws_ren_2019", "PWWSRen2019", (needs.STOPWORDS, needs.WORDNET, needs.WORDNET_LANGUAGES), None),
    "bae": Recipe(
        "bae_garg_2019",
        "BAEGarg2019",
        (needs.STOPWORDS, needs.TAGGER, needs.TAGSET, needs.SENTENCE_ENCODER),
        (needs.TAGGER, needs.TAGSET),
        (_ENCODER_TEXT, _MASKED_LM_TEXT),
        has_masked_lm=True,
    ),
    "iga": Recipe(
        "iga_wang_2019", "IGAWang2019", (needs.STOPWORDS, needs.VECTORS), (), (_NEIGHBOUR_TEXT,), has_neighbours=True
    ),
    "pruthi": Recipe("pruthi_2019", "Pruthi2019", (needs.STOPWORDS,), ()),
    "pso": Recipe("pso_zang_2020", "PSOZang2020", (needs.STOPWORDS, needs.HOWNET, needs.FLAIR_TAGGER), None),
    "leap": Recipe("leap_2023", "LEAP2023", (needs.STOPWORDS, needs.WORDNET, needs.WORDNET_LANGUAGES), None),
    "clare": Recipe(
        "clare_li_2020",
        "CLARE2020",
        (needs.STOPWORDS, needs.DISTILROBERTA, needs.FLAIR_TAGGER, needs.SENTENCE_ENCODER),
        None,
    ),
    "a2t": Recipe(
        "a2t_yoo_2021",
        "A2TYoo2021",
        (needs.STOPWORDS, needs.VECTORS, needs.TAGGER, needs.TAGSET, needs.SENTENCE_BERT),
        None,
    ),
    "checklist": Recipe("checklist_ribeiro_2020", "CheckList2020", (needs.FLAIR_NAMES,), None),
    "kuleshov": Recipe("kuleshov_2017", "Kuleshov2017", (needs.STOPWORDS, needs.VECTORS, needs.GPT2), None),
    "alzantot": Recipe(
        "genetic_algorithm_alzantot_2018",
        "GeneticAlgorithmAlzantot2018",
        (needs.STOPWORDS, needs.VECTORS, needs.GOOGLE_LM, needs.TENSORFLOW),
        None,
    ),
    "faster-alzantot": Recipe(
        "faster_genetic_algorithm_jia_2019",
        "FasterGeneticAlgorithmJia2019",
        (needs.STOPWORDS, needs.VECTORS, needs.LEARNING_TO_WRITE, needs.TORCHFILE),
        None,
    ),
    "french": Recipe(
        "french_recipe",
        "FrenchRecipe",
        (needs.WORDNET, needs.WORDNET_LANGUAGES, needs.FLAIR_FRENCH_NAMES),
        None,
    ),
}
SYNONYM = "synonym"  # this project's own
NAMES = (*RECIPES, SYNONYM)

# Recipes that TextAttack has and that give no accuracy under attack of a classifier, with the reason.
REFUSED = {
    "hotflip": "it follows the gradient of a model on whole words, which TextAttack offers for its own LSTM only",
    "input-reduction": "it shortens a text without changing the model's answer, so there is no accuracy under attack",
    "seq2sick": "it attacks summarisation and translation models, not classifiers",
    "morpheus": "it attacks translation models, not classifiers",
    "bad-characters": "it has no untargeted goal, and the wheel of TextAttack 0.3.11 lacks its table of characters",
    "spanish": "it asks WordNet for a language 'esp', which WordNet calls 'spa', so TextAttack 0.3.11 cannot build it",
    "chinese": "it is for Chinese texts, and OpenHowNet downloads its data while the recipe is built",
}
_REFUSED_CLASSES = {
    "HotFlipEbrahimi2017": "hotflip",
    "InputReductionFeng2018": "input-reduction",
    "Seq2SickCheng2018BlackBox": "seq2sick",
    "MorpheusTan2020": "morpheus",
    "BadCharacters2021": "bad-characters",
    "SpanishRecipe": "spanish",
    "ChineseRecipe": "chinese",
}
# Other spellings: TextAttack's own on its command line, and the names of its classes.
_ALIASES = {"bert-attack": "bertattack", **{recipe.name: name for name, recipe in RECIPES.items()}, **_REFUSED_CLASSES}


def canonical_name(name: str) -> str:
    """Returns the name used here for an attack given as TextAttack's command line or classes call it."""
    return _ALIASES.get(name, name)


def demand_known(name: str) -> None:
    """Refuses a (canonical) name that is no attack, or one that cannot be run on a classifier.

    Raises:
        UserError: says why, and which ones there are.
    """
    if name in REFUSED:
        raise UserError(f"{name} is not offered: {REFUSED[name]}; choose one of {', '.join(NAMES)}")
    if name not in NAMES:
        known = (*NAMES, *REFUSED, *_ALIASES)
        raise UserError(f"there is no attack {name!r}{nearest(name, known)}; choose one of {', '.join(NAMES)}")
