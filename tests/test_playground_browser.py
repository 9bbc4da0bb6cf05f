"""The playground's page in headless Chromium on tiny models: typing, attacking, stopping, two visitors, odd input."""

from __future__ import annotations

import json
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("gradio", reason="gradio is not installed; it comes with the extra 'playground'")

from stock_attack import RECIPES, stock_attack
from test_playground import Texts
from test_plots import run_folder
from test_report_browser import browser, size
from tiny_victim import SENTENCES, export_tiny
from transformers import pipeline

from mindspore_floodx.attack_job import attack_example
from mindspore_floodx.errors import UserError
from mindspore_floodx.playground import live_attack, server
from mindspore_floodx.playground.examples import Picked
from mindspore_floodx.playground.live_attack import FINISHED, REFUSED, STOPPED, Attacker, offered
from mindspore_floodx.playground.models import open_models, predict
from mindspore_floodx.playground.page import build_page

__all__ = ["browser"]  # a fixture
NEGATIVE, POSITIVE = LABELS = ("<b>negative</b>", '<img src=x onerror="window.hacked=1">')
RUN, SENTENCE = "<i>run", SENTENCES[5]
ENDLESS = "an attack on this does not end by itself"
LONGEST = "film " * 4_999 + "film"
SOON = 60  # seconds; on a free core nothing here takes 2


@pytest.fixture(scope="module")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacker]:
    """A run with markup in its name, classes, data set and logs, and an export of its own, both with random weights."""
    folder = tmp_path_factory.mktemp("playground")
    run = run_folder(folder / RUN, 40, 2, method="flooding", flood_level=0.1)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(settings | {"dataset": "<script>window.hacked=2</script>"}))
    export_tiny(run / "export", LABELS, 1)
    export_tiny(folder / "other", LABELS, 2)
    with Attacker(open_models([run, folder / "other"]), offered(resources="standin")) as found:
        yield found


@pytest.fixture(scope="module")
def address(attacker: Attacker) -> Iterator[str]:
    """Where the page is served."""
    page = build_page(attacker.models, attacker, [Picked((f"<u> {SENTENCE}",), 1), Picked((SENTENCES[0],), 0)])
    with server.bind(0) as held:
        serving = server.make_server(page)
        thread = threading.Thread(target=serving.run, kwargs={"sockets": [held]})
        thread.start()
        yield f"http://127.0.0.1:{held.getsockname()[1]}"
        serving.should_exit = True
        thread.join(SOON)
        assert not thread.is_alive()


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks on `ENDLESS` ask the model again and again."""

    def attack(built: Any, example: Any, **given: Any) -> dict[str, Any]:
        while example.texts == (ENDLESS,):
            built.goal_function.num_queries += 1
            built.goal_function.model([ENDLESS])
            time.sleep(0.02)
        return attack_example(built, example, **given)

    monkeypatch.setattr(live_attack, "attack_example", attack)


@pytest.fixture
def opened(browser: Any, address: str, attacker: Attacker) -> Iterator[Any]:
    """The page; afterwards the console is empty, nothing came from elsewhere, no markup became an element."""
    size(browser, 1280, 900)
    open_page(browser, address)
    yield browser
    assert browser.get_log("browser") == []
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((each) => each.name)")
    assert all(name.startswith((address, "data:")) for name in loaded)
    assert browser.execute_script("return window.hacked") is None
    strange = "script, u, i:not(.fx-bar > i), img:not([src^='data:'])"
    places = ("#answers", "#attacked", ".fx-models", "#history")
    assert browser.find_elements("css selector", ", ".join(f"{place} :is({strange})" for place in places)) == []


def open_page(browser: Any, address: str) -> None:
    browser.get(address)
    wait(browser, "return document.querySelector('#first textarea')")


def wait(browser: Any, script: str, *values: Any) -> Any:
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser, SOON, 0.05).until(lambda each: each.execute_script(script, *values))


def write(browser: Any, text: str) -> None:
    """Puts a text into the box at once, as pasting does."""
    browser.execute_script(
        "const box = document.querySelector('#first textarea'); box.value = arguments[0];"
        "box.dispatchEvent(new Event('input', {bubbles: true}))",
        text,
    )


def click(browser: Any, name: str) -> None:
    wait(browser, "return !document.querySelector(arguments[0]).disabled", f"#{name}")
    browser.find_element("css selector", f"#{name}").click()


def says(browser: Any, place: str, text: str) -> str:
    """Waits until `text` stands there; returns all that stands there."""
    script = "const t = document.querySelector(arguments[0]).innerText; return t.includes(arguments[1]) && t"
    return wait(browser, script, f"#{place}", text)


def seed_as_the_page_does() -> None:
    """Every attack of the page draws the random numbers of example 0 and seed 0."""
    seed = int(np.random.SeedSequence([0, 0]).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def queries(browser: Any) -> list[int]:
    return [int(each.replace(",", "")) for each in texts(browser, ".fx-count b")]


def texts(browser: Any, selector: str) -> list[str]:
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((each) => each.innerText)", selector
    )


def test_typing_shows_what_each_model_says(opened: Any, attacker: Attacker) -> None:
    text = "Wonderful film"
    opened.find_element("css selector", "#first textarea").send_keys(text)
    expected = [
        {each["label"]: each["score"] for each in pipeline("text-classification", str(folder), top_k=None)([text])[0]}
        for folder in (model.folder for model in attacker.models)
    ]
    says(opened, "answers", "%")
    assert texts(opened, "#answers thead th") == [RUN, "other"]
    for label in LABELS:
        wanted = [f"{100 * each[label]:.1f}%" for each in expected]
        wait(
            opened,
            "return [...document.querySelectorAll('#answers tbody tr')].some((row) => row.cells[0].innerText ==="
            " arguments[0] && [...row.cells].slice(1).map((cell) => cell.innerText.trim()).join() === arguments[1])",
            label,
            ",".join(wanted),
        )
    answers = texts(opened, ".fx-answer b")
    assert answers == [max(each, key=each.get) for each in expected]
    write(opened, "")
    says(opened, "answers", "Type a sentence")


def test_an_attack_is_that_of_textattack_itself(opened: Any, attacker: Attacker) -> None:
    write(opened, SENTENCE)
    says(opened, "answers", "%")
    click(opened, "attack")
    wait(opened, "return document.querySelectorAll('#attacked .fx-turn').length === 2")
    marks = opened.execute_script("return [...document.querySelectorAll('.fx-text')].map((each) => each.innerHTML)")
    assert len(marks) == 2
    for model, count, marked in zip(attacker.models, queries(opened), marks, strict=True):
        label = int(predict(model, (SENTENCE,)).probabilities.argmax())
        seed_as_the_page_does()
        stock = stock_attack(RECIPES.DeepWordBugGao2018, model.folder, {}).attack(SENTENCE, label)
        read = Texts(marked)
        assert read.before == SENTENCE and read.others == []
        assert (count, read.after) == (stock.num_queries, stock.perturbed_result.attacked_text.text)


def test_picking_sets_the_true_class(opened: Any, attacker: Attacker) -> None:
    opened.find_element("css selector", "#pick input").click()
    wait(opened, "return document.querySelectorAll('[role=option]').length === 2")
    option = opened.find_element("css selector", "[role=option]")
    assert "<u> An honest" in option.get_attribute("textContent")
    option.click()
    wait(opened, "return document.querySelector('#first textarea').value === arguments[0]", f"<u> {SENTENCE}")
    wait(opened, "return document.querySelector('#truth input').value === arguments[0]", POSITIVE)
    click(opened, "attack")
    wait(opened, "return document.querySelectorAll('#attacked .fx-turn').length === 2")
    cards = texts(opened, ".fx-card")
    for model, card in zip(attacker.models, cards, strict=True):
        right = predict(model, (f"<u> {SENTENCE}",)).probabilities.argmax() == 1
        assert (f"Wrong already, without an attack: the true class is {POSITIVE}" in card) != right


def test_two_visitors_at_once(opened: Any, address: str, attacker: Attacker, endless: None) -> None:
    first = opened.current_window_handle
    opened.switch_to.new_window("tab")
    second = opened.current_window_handle
    open_page(opened, address)
    opened.switch_to.window(first)
    write(opened, ENDLESS)
    click(opened, "attack")
    says(opened, "attacked", "Running")
    opened.switch_to.window(second)
    write(opened, SENTENCE)
    says(opened, "answers", "%")  # answered while the other's attack runs
    click(opened, "attack")
    says(opened, "attacked", "Waiting for another attack")
    click(opened, "stop")
    says(opened, "attacked", "Stopped")
    assert queries(opened) == [0, 0]
    opened.switch_to.window(first)
    before = texts(opened, ".fx-count b")[0]
    wait(opened, "return document.querySelector('.fx-count b').innerText !== arguments[0]", before)
    opened.switch_to.window(second)
    click(opened, "attack")
    says(opened, "attacked", "Waiting for another attack")
    opened.switch_to.window(first)
    click(opened, "stop")
    assert "Running" not in says(opened, "attacked", "Stopped")
    wait(opened, "return document.querySelector('#stop').disabled && !document.querySelector('#attack').disabled")
    opened.switch_to.window(second)
    wait(opened, "return document.querySelectorAll('#attacked .fx-turn').length === 2")
    opened.close()
    opened.switch_to.window(first)


def test_an_attack_whose_visitor_has_gone_ends(opened: Any, address: str, attacker: Attacker, endless: None) -> None:
    write(opened, ENDLESS)
    click(opened, "attack")
    says(opened, "attacked", "Running")
    assert len(attacker._live) == 1
    open_page(opened, address)
    opened.get_log("browser")  # empties it: Gradio itself logs that its stream was cut
    until = time.monotonic() + SOON
    while attacker._live and time.monotonic() < until:
        time.sleep(0.1)
    assert attacker._live == []


def test_nothing_and_too_much(opened: Any, attacker: Attacker) -> None:
    click(opened, "attack")
    says(opened, "attacked", "Type a sentence, or pick an example.")
    write(opened, LONGEST)
    says(opened, "answers", "Only the first 64 of the 5,002 tokens are read")
    click(opened, "attack")
    says(opened, "attacked", "An attack takes at most 500 words, and these are 5,000; shorten the text.")
    write(opened, f"{LONGEST} film")
    says(opened, "answers", "The text has 5,001 words; at most 5,000 are taken.")
    click(opened, "attack")
    says(opened, "attacked", "The text has 5,001 words")


def test_markup_stays_text(opened: Any, attacker: Attacker) -> None:
    text = "<script>window.hacked=3</script> <img src=x onerror='window.hacked=4'> ${window.hacked=5} {{this}} `film`"
    write(opened, text)
    says(opened, "answers", NEGATIVE)
    click(opened, "attack")
    wait(opened, "return document.querySelectorAll('#attacked .fx-turn').length === 2")
    marks = opened.execute_script("return [...document.querySelectorAll('.fx-text')].map((each) => each.innerHTML)")
    assert marks and all(Texts(each).before == text and Texts(each).others == [] for each in marks)
    assert "<script>window.hacked=2</script>" in opened.find_element("css selector", ".fx-models").text
    assert opened.find_element("css selector", "#history").text.count(RUN) == 1


def test_light_dark_and_as_wide_as_a_phone(opened: Any, attacker: Attacker) -> None:
    def shown(scheme: str) -> list[bool]:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        dark = scheme == "dark"
        wait(opened, "return document.body.classList.contains('dark') === arguments[0]", dark)
        return opened.execute_script(
            "return ['.fx-light', '.fx-dark'].map((each) => document.querySelector(each).offsetParent !== null)"
        )

    assert shown("light") == [True, False] and shown("dark") == [False, True]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    size(opened, 375, 812)
    write(opened, SENTENCE)
    says(opened, "answers", "%")
    assert opened.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [375, 375]


def test_another_name_for_this_machine_is_turned_away(address: str) -> None:
    request = urllib.request.Request(address, headers={"Host": "elsewhere.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request)


def test_attacks_of_pairs_and_what_is_refused(tmp_path: Path, attacker: Attacker) -> None:
    """Without a page: the classes of the second model stand in another order."""
    first = open_models([attacker.models[0].folder])[0]
    export_tiny(tmp_path / "turned", LABELS[::-1], 1)
    models = open_models([first.folder, tmp_path / "turned"])
    assert models[0].labels == models[1].labels and models[1].order == [1, 0]
    texts = ("Shares fell after the report .", "The report made shares fall .")
    here, turned = (predict(model, texts).probabilities for model in models)
    assert here == pytest.approx(turned[::-1], abs=1e-6)  # the same weights under the other's names
    with Attacker(models, offered(resources="standin")) as both:
        live = both.start("deepwordbug", texts, true_class=int(here.argmax()))
        assert live.future is not None
        live.future.result(SOON)
        right, wrong = live.parts
        assert right.state == wrong.state == FINISHED and right.record and wrong.record
        assert list(right.record["original"].values()) == list(texts) and right.queries == right.record["queries"] > 1
        assert wrong.record["result"] == "skipped" and wrong.queries == 1
        with pytest.raises(UserError, match="'textfooler' is not offered here"):
            both.start("textfooler", texts)
        both._built = lambda *arguments: 1 / 0  # a recipe that fails
        live = both.start("deepwordbug", texts)
        live.future.result(SOON)
        assert [part.state for part in live.parts] == [REFUSED] * 2
        assert "The attack failed: ZeroDivisionError" in unescape(live.parts[0].reason)
        live.stop()
        assert live.parts[0].state == REFUSED != STOPPED


def test_neighbour_lists_offer_more_attacks(tmp_path: Path) -> None:
    (tmp_path / "lists.json").write_text(json.dumps({"a": ["b"]}))
    assert "textbugger" in [each.attack for each in offered(resources="standin", neighbours=tmp_path / "lists.json")]
