"""The page on which labels are checked: whole and self-contained, and in a browser: keys, reload, and the CSV it saves."""

import csv
import io
import json
import re
import shutil

import pytest

from otrw.analysis.contact_sheet import COLUMNS, Card, contact_sheet

NASTY = 'a "quoted", <b>name</b></script>,\u00e4\u6f22.png'
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def cards(number=6, classes=3):
    return [Card(f"train/{n % classes}/{n}.png" if n else NASTY, n * classes // number, PIXEL) for n in range(number)]


def page(names=("cat", "dog & co", "f\u00fcchse"), **options):
    return contact_sheet(cards(classes=len(names), **options), names, "Labels <to> check", "trusted.csv")


def test_the_page_is_whole_and_nothing_in_it_is_taken_for_markup():
    text = page()
    assert "<b>name" not in text
    assert text.count("</script>") == 1
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    facts = json.loads(re.search(r"const sheet = (.*);\n", text)[1])
    assert facts["cards"][0] == [NASTY, 0, None]
    assert [given for _, given, _ in facts["cards"]] == sorted(given for _, given, _ in facts["cards"])


def test_a_suggestion_is_a_button_and_a_key_where_there_is_one():
    names = ("cat", "dog & co", "f\u00fcchse")
    without, with_one = cards(number=3), [*cards(number=2), Card("c/1.png", 2, PIXEL, 1)]
    texts = [contact_sheet(some, names, "Labels", "corrections.csv") for some in (without, with_one)]
    assert [text.count('data-do="suggested"') for text in texts] == [0, 1]
    assert "it is dog &amp; co</button>" in texts[1]
    assert ["<kbd>s</kbd>" in text for text in texts] == [False, True]


def test_other_samples_are_another_page_for_the_browsers_memory():
    keys = [re.search(r"otrw-trusted-\w+", page(number=n))[0] for n in (6, 9, 6)]
    assert keys[0] == keys[2] != keys[1]


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Debian's chromium")
    flags = ("no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking", "disable-sync")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=[f"--{flag}" for flag in flags])
        yield opened
        opened.close()


def saved(tab):
    with tab.expect_download() as download:
        tab.click("#save")
    assert download.value.suggested_filename == "trusted.csv"
    with open(download.value.path(), encoding="utf-8", newline="") as file:
        return list(csv.reader(io.StringIO(file.read())))


def test_keys_judge_a_reload_keeps_it_and_the_csv_holds_it(browser, tmp_path):
    path = tmp_path / "sheet.html"
    path.write_text(page(), encoding="utf-8")
    tab = browser.new_page()
    tab.goto(path.as_uri())
    for key in ("n", "r", "w", "ArrowRight", "3", "Space", "2", "ArrowRight", "u"):
        tab.keyboard.press(key)
    tab.reload()
    assert tab.inner_text("#count") == "5 of 6 checked, 3 wrong"
    header, *rows = saved(tab)
    assert tuple(header) == COLUMNS
    names = ["cat", "cat", "dog & co", "dog & co", "f\u00fcchse", "f\u00fcchse"]
    assert [row[0] for row in rows] == [card.identity for card in cards()]
    assert [row[1] for row in rows] == names
    assert [row[2:] for row in rows] == [
        ["cat", "right"],
        ["", "wrong"],
        ["f\u00fcchse", "wrong"],
        ["dog & co", "right"],
        ["dog & co", "wrong"],
        ["", ""],
    ]


def test_buttons_and_the_list_of_classes_do_the_same(browser, tmp_path):
    path = tmp_path / "sheet.html"
    path.write_text(page(tuple(f"class {n}" for n in range(12)), number=12), encoding="utf-8")
    tab = browser.new_page(viewport={"width": 400, "height": 800})
    tab.goto(path.as_uri())
    tab.click("[data-card='0'] [data-do=right]")
    tab.click("[data-card='1'] [data-do=wrong]")
    tab.select_option("[data-card='1'] select", label="class 11")
    tab.click("[data-card='2'] [data-do=wrong]")
    tab.click("[data-card='3'] [data-do=right]")
    tab.click("[data-card='3'] [data-do=right]")
    rows = saved(tab)[1:]
    assert [row[2:] for row in rows[:4]] == [["class 0", "right"], ["class 11", "wrong"], ["", "wrong"], ["", ""]]
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400
