"""The report's page in headless Chromium: sorting, filtering, reading attacked sentences, many of them, looks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reproduce_results import draw_results, write_cell
from test_report import HOSTILE, make_hostile

from mindspore_floodx.attack_metrics import FAILED, SKIPPED, SUCCEEDED
from mindspore_floodx.reproduce.report import write_report

webdriver = pytest.importorskip(
    "selenium.webdriver", reason="selenium is not installed; it comes with the extra 'test'"
)
MANY = 20_000
LONGEST = 2.0  # seconds of a filter; on a free core it is a hundredth of that
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report with two data sets, texts of pairs, texts left out, and 20,000 samples in one set."""
    output = tmp_path_factory.mktemp("results")
    for method, robust in (("finetune", 0.2), ("flooding", 0.3), ("pgd", 0.4)):
        outcomes = draw_results(40, 0.86, robust, 3)
        for seed in (0, 1) if method == "finetune" else (0,):
            attacks = {"textfooler": outcomes, "textbugger": outcomes[::-1]}
            write_cell(output, "sst2", method, seed, attacks=attacks, calibrated={"textfooler": outcomes}, level=None)
    write_cell(output, "mrpc", "finetune", attacks={"textfooler": draw_results(30, 0.8, 0.3, 4)})
    write_cell(output, "ag_news", "pgd", attacks={"textfooler": draw_results(30, 0.8, 0.3, 4)}, keep_texts=False)
    write_cell(output, "qnli", "finetune", attacks={"textfooler": [SUCCEEDED, FAILED, SKIPPED, FAILED] * 100})
    path = output / "cells" / "qnli-finetune-0" / "examples-textfooler.jsonl"
    drawn = [json.loads(line) for line in path.read_text().splitlines()]
    many = (drawn[number % len(drawn)] | {"id": number} for number in range(MANY))
    path.write_text("".join(json.dumps(each) + "\n" for each in many))
    return write_report(output).as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium; skips where there is none."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium with its driver; on Debian: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


@pytest.fixture
def opened(browser: Any, page: str) -> Iterator[Any]:
    """The page, desktop-wide, its first sentences unpacked; afterwards nothing is in the console or was loaded."""
    size(browser, 1280, 900)
    browser.get(page)
    wait(browser, "return document.querySelectorAll('#samples li').length")
    yield browser
    assert browser.get_log("browser") == []
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((each) => each.name)")
    assert all(name.startswith("data:") for name in loaded)


def size(browser: Any, width: int, height: int) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def wait(browser: Any, script: str, *values: Any) -> Any:
    """Returns what `script` returns once that is true; fails after 20 s."""
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser, 20, 0.02).until(lambda each: each.execute_script(script, *values))


def click(browser: Any, selector: str) -> None:
    element = browser.find_element("css selector", selector)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def choose(browser: Any, selector: str, value: str) -> None:
    from selenium.webdriver.support.select import Select

    Select(browser.find_element("css selector", selector)).select_by_visible_text(value)


def pick(browser: Any, **wanted: str) -> None:
    """Chooses a set of samples and waits until they are there."""
    for name, value in wanted.items():
        choose(browser, f"[data-pick={name}]", value)
    wait(browser, "return document.querySelector('#sample-count').textContent.includes(' of ')")


def column(browser: Any, heading: str) -> list[str]:
    """The visible cells of a column of the table of results, first line of each."""
    script = """
        const titles = [...document.querySelectorAll('#main thead th')].map((cell) => cell.textContent);
        const rows = [...document.querySelectorAll('#main tbody tr')].filter((row) => row.offsetParent);
        return rows.map((row) => row.cells[titles.indexOf(arguments[0])].firstChild.textContent);"""
    return browser.execute_script(script, heading)


def samples(browser: Any) -> list[str]:
    return browser.execute_script(
        "return [...document.querySelectorAll('#samples li')].map((item) => item.textContent)"
    )


def background(browser: Any) -> str:
    return browser.execute_script("return getComputedStyle(document.body).backgroundColor")


def test_sorting(opened: Any) -> None:
    heading = "//table[@id='main']//th[button[text()='Aua%']]"
    find = lambda: opened.find_element("xpath", heading)  # noqa: E731
    values = lambda: [float(text.split()[0]) for text in column(opened, "Aua%")]  # noqa: E731
    before = values()
    assert before != sorted(before, reverse=True) and find().get_attribute("aria-sort") == "none"
    find().find_element("xpath", "button").click()
    assert values() == sorted(before, reverse=True) and find().get_attribute("aria-sort") == "descending"
    find().find_element("xpath", "button").send_keys("\ue007")  # the enter key
    assert values() == sorted(before) and find().get_attribute("aria-sort") == "ascending"
    opened.find_element("xpath", "//table[@id='main']//th/button[text()='Data set']").send_keys(" ")
    assert column(opened, "Data set") == sorted(column(opened, "Data set"))
    assert find().get_attribute("aria-sort") == "none"
    calibrated = opened.find_element("xpath", "//table[@id='main']//th/button[text()='Aua% calibrated']")
    for _ in range(2):
        calibrated.click()
        shown = column(opened, "Aua% calibrated")
        assert "-" in shown and all(text == "-" for text in shown[shown.index("-") :])  # what is missing comes last


def test_filtering(opened: Any) -> None:
    rows = len(column(opened, "Method"))
    choose(opened, "[data-filter=dataset]", "SST-2")
    assert set(column(opened, "Data set")) == {"SST-2"}
    choose(opened, "[data-filter=attack]", "TextBugger")
    choose(opened, "[data-filter=method]", "PGD")
    assert (column(opened, "Method"), column(opened, "Attack")) == (["PGD"], ["TextBugger"])
    assert opened.find_element("id", "row-count").text == f"1 of {rows} rows"
    for name in ("dataset", "attack", "method"):
        choose(opened, f"[data-filter={name}]", "all")
    assert len(column(opened, "Method")) == rows


def records(page: str, cell: str, attack: str = "textfooler") -> list[dict[str, Any]]:
    path = Path(page.removeprefix("file://")).parent / "cells" / cell / f"examples-{attack}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_opening_a_cell(opened: Any, page: str) -> None:
    click(opened, "button[aria-label='Attacked sentences of PGD, SST-2, TextBugger, seed 0']")
    wait(opened, "return document.querySelector('[data-pick=attack]').value === 'TextBugger'")
    pick(opened)
    assert "PGD, seed 0" in opened.find_element("id", "about").text
    assert "stand-in resources" in opened.find_element("id", "about").text
    script = """return [...document.querySelectorAll('#samples li')].map((item) => arguments[0].map((left) => {
        const text = item.querySelector('p').cloneNode(true);
        text.querySelectorAll(left).forEach((part) => part.remove());
        return text.textContent;}));"""
    shown = opened.execute_script(script, ["ins, .gap", "del, .gap"])
    expected = records(page, "sst2-pgd-0", "textbugger")[:25]
    assert shown == [[each["original"]["sentence"], each["perturbed"]["sentence"]] for each in expected]
    assert all((before != after) == (each["result"] == SUCCEEDED) for (before, after), each in zip(shown, expected))  # noqa: B905
    for text, each in zip(samples(opened), expected, strict=True):
        names = ["negative", "positive"]
        before, after = (
            f"{names[each[key + '_output']]} {round(100 * max(each[key + '_scores'])) / 100:.2f}"
            for key in ("original", "perturbed")
        )
        assert text.startswith(each["result"]) and f"{before} → {after}" in text
        assert f"true label {names[each['label']]}" in text and f"{each['queries']} queries" in text
    assert opened.execute_script("return document.activeElement.id") == "search"


def test_results_and_pages(opened: Any, page: str) -> None:
    expected = records(page, "sst2-finetune-0")
    assert opened.find_element("id", "sample-count").text == "1–25 of 40"  # noqa: RUF001
    click(opened, "#pages [data-step='1']")
    assert len(samples(opened)) == 15 and opened.find_element("id", "sample-count").text == "26–40 of 40"  # noqa: RUF001
    for letter, result in (("s", SUCCEEDED), ("f", FAILED), ("k", SKIPPED)):
        click(opened, f"#outcome input[value={letter}]")
        count = sum(each["result"] == result for each in expected)
        assert f"of {count}" in opened.find_element("id", "sample-count").text
        assert all(text.startswith(result) for text in samples(opened))
        assert f"({count})" in opened.find_element("id", "outcome").text
    click(opened, "#outcome input[value='']")
    choose(opened, "#order", "most queries first")
    most = sorted((each["queries"] for each in expected), reverse=True)[:25]
    assert [f"{count} quer" in text for count, text in zip(most, samples(opened), strict=True)] == [True] * 25


def test_searching(opened: Any, page: str) -> None:
    expected = records(page, "sst2-finetune-0")
    changed = sum("siblings" in each["perturbed"]["sentence"] for each in expected)  # only in texts after the attack
    assert 0 < changed < len(expected) and not any("siblings" in each["original"]["sentence"] for each in expected)
    opened.find_element("id", "search").send_keys("SIBLINGS")
    wait(opened, "return document.querySelector('#sample-count').textContent.endsWith(arguments[0])", f" of {changed}")
    assert all("siblings" in text for text in samples(opened))
    opened.find_element("id", "search").send_keys(" nowhere")
    wait(opened, "return document.querySelector('#sample-count').textContent === 'No sentence fits.'")
    assert samples(opened) == []


def test_all_cells_at_once(opened: Any) -> None:
    pick(opened, dataset="SST-2", method="all", seed="all", attack="all", kind="all")
    count = 40 * (3 + 1) * 3  # cells, two attacks and one on calibrated logits
    assert opened.find_element("id", "sample-count").text == f"1–25 of {count}"  # noqa: RUF001
    assert "SST-2, fine-tuning, seed 0, TextFooler, raw" in samples(opened)[0]
    assert opened.find_element("id", "about").text == "4 cells. Attacked with stand-in resources."


def test_pairs_and_left_out_texts(opened: Any, page: str) -> None:
    pick(opened, dataset="MRPC")
    columns = opened.execute_script(
        "return [...document.querySelector('#samples li').querySelectorAll('.column')].map((each) => each.textContent)"
    )
    assert columns == list(records(page, "mrpc-finetune-0")[0]["original"])
    pick(opened, dataset="AG News")
    expected = records(page, "ag_news-pgd-0")[:25]
    for text, each in zip(samples(opened), expected, strict=True):
        assert each["original_sha256"] in text and all(old in text and new in text for old, new in each["changes"])


def test_20000_samples(opened: Any, page: str) -> None:
    expected = records(page, "qnli-finetune-0")
    counts = {
        word: sum(word in str([each["original"], each["perturbed"]]) for each in expected)
        for word in ("siblings", "the end")
    }
    assert 0 < counts["the end"] < counts["siblings"] < MANY
    pick(opened, dataset="QNLI")
    assert opened.find_element("id", "sample-count").text == "1–25 of 20,000"  # noqa: RUF001
    script = """
        const [selector, value, count] = arguments;
        const started = performance.now();
        const input = document.querySelector(selector);
        input.value = value;
        if (input.type === 'radio') input.click(); else input.dispatchEvent(new Event('input'));
        const done = () => document.querySelector('#sample-count').textContent.endsWith(count);
        return new Promise((resolve) => {
          const look = () => (done() || performance.now() - started > 15000
            ? resolve((performance.now() - started) / 1000) : setTimeout(look, 5));
          look();
        });"""
    seconds = {
        "result": opened.execute_script(script, "#outcome input[value=s]", "s", f" of {MANY // 4:,}"),
        "all": opened.execute_script(script, "#outcome input[value='']", "", f" of {MANY:,}"),
        **{word: opened.execute_script(script, "#search", word, f" of {count:,}") for word, count in counts.items()},
    }
    assert all(each < LONGEST for each in seconds.values()), seconds
    assert opened.execute_script("return document.querySelectorAll('*').length") < 3000  # a page of rows, not all
    assert len(samples(opened)) == 25


def test_light_and_dark(opened: Any) -> None:
    def prefer(scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def offers(theme: str) -> bool:  # the page hears of the preference a moment later than its style sheet does
        return bool(wait(opened, "return document.getElementById('theme').textContent === arguments[0]", theme))

    prefer("light")
    assert offers("Dark")
    light = background(opened)
    prefer("dark")
    assert offers("Light")
    dark = background(opened)
    assert light != dark
    click(opened, "#theme")
    assert background(opened) == light and opened.find_element("id", "theme").text == "Dark"
    prefer("light")
    assert background(opened) == light
    click(opened, "#theme")
    assert background(opened) == dark
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    assert background(opened) == "rgb(255, 255, 255)"
    assert not opened.find_element("id", "theme").is_displayed()
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def test_as_wide_as_a_phone(opened: Any) -> None:
    size(opened, 375, 812)
    for details in opened.find_elements("css selector", "details"):
        opened.execute_script("arguments[0].open = true", details)
    pick(opened, dataset="AG News")
    assert opened.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [375, 375]
    table = opened.execute_script(
        "const box = document.querySelector('#main').parentElement; return [box.scrollWidth, box.clientWidth]"
    )
    assert table[0] > table[1]  # it scrolls inside its box


def test_markup_in_data_does_nothing(browser: Any, tmp_path: Path) -> None:
    make_hostile(tmp_path)
    browser.get(write_report(tmp_path).as_uri())
    wait(browser, "return document.querySelectorAll('#samples li').length")
    assert browser.execute_script("return window.hacked") is None
    assert HOSTILE in samples(browser)[-1] and f"true label {HOSTILE}" in " ".join(samples(browser))
    assert (
        browser.execute_script("return document.querySelectorAll('main img, main script, main i, main b b').length")
        == 0
    )
    assert browser.get_log("browser") == []


def test_an_old_browser_is_told(browser: Any, page: str) -> None:
    added = browser.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": "delete window.DecompressionStream"}
    )
    browser.get(page)
    told = wait(browser, "return document.querySelector('#samples li')?.textContent")
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
    assert told.startswith("This browser is too old to unpack the sentences")
    assert len(column(browser, "Method")) > 0
    assert browser.get_log("browser") == []
