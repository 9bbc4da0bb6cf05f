"""The attacks by name: the published recipes as TextAttack builds them, and one of our own that needs no download."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from . import attack_resources as needs
from .attack_catalogue import RECIPES, SYNONYM, Recipe, canonical_name, demand_known
from .attack_fingerprint import sha256_of_content, sha256_of_model
from .attack_savings import Savings
from .errors import UserError, nearest
from .files import sha256_of
from .resource_manifest import recorded_hashes

OFFICIAL, STANDIN, BUILT_IN = "official", "standin", "built-in"
# The paper's K; TextAttack 0.3.11 takes 8, and took 48 up to 0.3.10.
BERT_ATTACK_CANDIDATES = 48
DEFAULT_SAVINGS = Savings()
SYNONYM_CANDIDATES = 50  # as many neighbours as TextFooler takes


@dataclass(frozen=True)
class AttackSettings:
    """Which attack, with which resources; validated by `check_settings`. Attacks ignore what they have no use for."""

    attack: str = "textfooler"
    resources: str = OFFICIAL
    neighbours: str | os.PathLike | None = None  # a JSON file, see `attack_standin.read_neighbours`
    max_candidates: int = BERT_ATTACK_CANDIDATES  # BERT-Attack's K
    masked_lm: str | os.PathLike | None = None  # BERT-Attack's masked language model, a folder
    synonyms: dict[str, list[str]] | None = field(default=None, repr=False)  # of the recipe `synonym`

    def __post_init__(self) -> None:
        object.__setattr__(self, "attack", canonical_name(self.attack))


def check_settings(settings: AttackSettings) -> None:
    """Refuses a wrong or impossible choice before anything is loaded.

    Raises:
        UserError: unknown attack or resources, a file that is needed and not given, or resources that are missing on
            this machine, all listed with their places.
    """
    name, resources = settings.attack, settings.resources
    demand_known(name)
    if resources not in (OFFICIAL, STANDIN):
        raise UserError(f"resources must be 'official' or 'standin', not {resources!r}{nearest(resources, [OFFICIAL])}")
    if settings.max_candidates < 1:
        raise UserError(f"max_candidates must be at least 1, not {settings.max_candidates}")
    if settings.neighbours is not None and not os.path.isfile(settings.neighbours):
        raise UserError(f"the neighbour file {settings.neighbours} does not exist; give another one with --neighbours")
    if name == SYNONYM:
        return
    recipe = RECIPES[name]
    if settings.neighbours is not None and resources == OFFICIAL:
        raise UserError("neighbour lists are stand-ins; use --resources standin with --neighbours, or leave it out")
    if resources == OFFICIAL:
        required = recipe.official + ((needs.masked_lm(settings.masked_lm),) if recipe.has_masked_lm else ())
        remedy = _remedy(name) + (
            ", or ask for stand-ins with --resources standin"
            if recipe.standin is not None
            else "; there are no stand-ins for this attack"
        )
    else:
        if recipe.standin is None:
            raise UserError(f"there are no stand-in resources for {name}; use --resources official")
        if recipe.has_neighbours and settings.neighbours is None:
            raise UserError(f"{name} with stand-in resources needs --neighbours FILE, a JSON file of near words")
        if recipe.has_masked_lm and settings.masked_lm is None:
            raise UserError(f"{name} with stand-in resources needs --masked-lm FOLDER, a masked language model")
        required = recipe.standin + ((needs.masked_lm(settings.masked_lm),) if recipe.has_masked_lm else ())
        remedy = _remedy(name)
    if missing := needs.list_missing(required):
        listed = "; ".join(f"({number}) {line}" for number, line in enumerate(missing, start=1))
        raise UserError(f"{name} with {resources} resources lacks {listed}; {remedy}")


def _remedy(name: str) -> str:
    return f"get them with `python run/resources.py fetch {name}`, or from another machine with `... import SOURCE`"


def describe_resources(settings: AttackSettings) -> dict[str, object]:
    """Returns what the result file says about resources: ``resources`` (official, standin or built-in) and details."""
    if settings.attack == SYNONYM:
        return {"resources": BUILT_IN, "resource_notes": ["the project's own attack, not a published one"]}
    recipe = RECIPES[settings.attack]
    notes: list[str] = []
    kind = settings.resources
    if kind == STANDIN:
        notes += recipe.standin_texts
        if needs.STOPWORDS in recipe.official and needs.STOPWORDS.missing() is not None:
            notes.append("built-in stop words in the place of NLTK's")
        if recipe.has_neighbours and settings.neighbours is not None:
            notes.append(f"neighbour lists: {os.path.basename(settings.neighbours)}")
    if settings.attack == "bertattack":
        notes.append(f"{settings.max_candidates} candidates a sub-word")
    if kind == OFFICIAL and needs.SENTENCE_ENCODER in recipe.official:
        notes += [f"{name} {version}" for name, version in needs.HUB_PACKAGES.versions().items()]
    return {"resources": kind, "resource_notes": notes}


def build_attack(
    settings: AttackSettings, victim: Any, attackable: str = "both", savings: Savings = DEFAULT_SAVINGS
) -> Any:
    """Builds the TextAttack `Attack` of checked `settings` on `victim`, a TextAttack model wrapper.

    Args:
        attackable: which text of a pair may be changed: ``first``, ``second`` or ``both``.
        savings: what is left out of TextAttack's work; the victim has its own.
    """
    from .attack_lean import save
    from .attack_library import no_hub_downloads, no_nltk_downloads, textattack
    from .attack_swaps import in_fixed_order

    with contextlib.ExitStack() as stack:
        stack.enter_context(no_nltk_downloads())
        stack.enter_context(no_hub_downloads())
        if settings.attack == SYNONYM:
            attack = _build_synonym(settings, victim)
        else:
            recipe = RECIPES[settings.attack]
            _prepare(recipe, settings)
            module = importlib.import_module(f"textattack.attack_recipes.{recipe.module}")
            for target, name, replacement in _replacements(settings, module, savings):
                stack.enter_context(mock.patch.object(target, name, replacement))
            attack = getattr(module, recipe.name).build(victim)
    in_fixed_order(attack.transformation)
    save(attack, savings)
    if attackable != "both":
        frozen = {"first": {"text_pair"}, "second": {"text"}}[attackable]
        rule = textattack.constraints.pre_transformation.InputColumnModification(["text", "text_pair"], frozen)
        attack.pre_transformation_constraints.append(rule)
    return attack


def _prepare(recipe: Recipe, settings: AttackSettings) -> None:
    if settings.resources == OFFICIAL and {needs.SENTENCE_ENCODER, needs.TENSORFLOW} & set(recipe.official):
        import torch

        from .attack_library import prepare_tensorflow

        prepare_tensorflow(torch.get_num_threads())


def _replacements(settings: AttackSettings, module: Any, savings: Savings) -> list[tuple[Any, str, Any]]:
    """What is put in place of TextAttack's own classes while the recipe builds itself: (where, name, by what)."""
    from .attack_library import textattack
    from .attack_swaps import HomoglyphSwap

    found: list[tuple[Any, str, Any]] = []
    if hasattr(module, "WordSwapHomoglyphSwap"):
        found.append((module, "WordSwapHomoglyphSwap", HomoglyphSwap))
    if RECIPES[settings.attack].has_masked_lm:
        found.append((module, "WordSwapMaskedLM", _with_masked_lm(settings, savings)))
    if settings.resources == STANDIN:
        from .attack_standin import MiniLMEncoder, NeighbourLists, read_neighbours

        if RECIPES[settings.attack].has_neighbours and settings.neighbours is not None:
            lists = NeighbourLists(read_neighbours(settings.neighbours))
            embedding = textattack.shared.WordEmbedding
            found.append((embedding, "counterfitted_GLOVE_embedding", staticmethod(lambda: lists)))
        if hasattr(module, "UniversalSentenceEncoder"):
            found.append((module, "UniversalSentenceEncoder", functools.partial(MiniLMEncoder, savings=savings)))
    return found


def _with_masked_lm(settings: AttackSettings, savings: Savings) -> Callable[..., Any]:
    from transformers import AutoModelForMaskedLM

    from .attack_swaps import MaskedLMSwap
    from .attack_transformer import load_transformer

    source = os.fspath(settings.masked_lm or needs.MASKED_LM)
    tokenizer, model = load_transformer(source, AutoModelForMaskedLM, "a masked language model")

    def build(**arguments: Any) -> Any:
        if settings.attack == "bertattack":  # its own number of candidates is not taken
            arguments["max_candidates"] = settings.max_candidates
        return MaskedLMSwap(masked_language_model=model, tokenizer=tokenizer, savings=savings, **arguments)

    return build


def synonym_lists(settings: AttackSettings) -> dict[str, list[str]]:
    """Returns the lists of the attack `synonym`: those given, those of the file, or the demo corpus's."""
    if settings.synonyms is not None:
        return settings.synonyms
    if settings.neighbours is not None:
        from .attack_standin import read_neighbours

        return read_neighbours(settings.neighbours)
    from .demo_corpus import synonyms

    return synonyms()


def sha256_of_resources(settings: AttackSettings) -> str | None:
    """Returns a SHA-256 of the data that the attack uses, as far as it is known, or None.

    That is the lists or the masked language model that the user gave, and of the official resources those that were
    fetched or imported by `run/resources.py`, which writes down their hashes.
    """
    if settings.attack == SYNONYM:
        return sha256_of_content(synonym_lists(settings))
    recipe = RECIPES[settings.attack]
    given = None
    if recipe.has_neighbours and settings.neighbours is not None:
        given = sha256_of(settings.neighbours)
    elif recipe.has_masked_lm and settings.masked_lm is not None:
        given = sha256_of_model(settings.masked_lm)
    if settings.resources != OFFICIAL:
        return given
    used = recipe.official + ((needs.BERT,) if recipe.has_masked_lm and given is None else ())
    recorded = [hashes for resource in used if (place := resource.place()) and (hashes := recorded_hashes(place))]
    return sha256_of_content([given, *recorded]) if recorded else given


def _build_synonym(settings: AttackSettings, victim: Any) -> Any:
    """Greedy word swaps in the order of the words' importance, as TextFooler does it, without its constraints."""
    from .attack_library import BUILT_IN_NLTK_DATA, textattack
    from .attack_standin import NeighbourLists

    stopwords = (BUILT_IN_NLTK_DATA / "corpora" / "stopwords" / "english").read_text(encoding="utf-8").split()
    rules = textattack.constraints.pre_transformation
    return textattack.Attack(
        textattack.goal_functions.UntargetedClassification(victim),
        [rules.RepeatModification(), rules.StopwordModification(stopwords=stopwords)],
        textattack.transformations.WordSwapEmbedding(
            max_candidates=SYNONYM_CANDIDATES, embedding=NeighbourLists(synonym_lists(settings))
        ),
        textattack.search_methods.GreedyWordSwapWIR(wir_method="delete"),
    )
