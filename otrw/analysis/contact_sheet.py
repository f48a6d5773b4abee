"""A page on which somebody checks labels: every sample with its label, right, wrong or of which class, by keyboard or touch."""

import hashlib
import html
import json
from collections.abc import Sequence
from typing import NamedTuple

from otrw.analysis.report.style import STYLE

COLUMNS = ("identity", "given_label", "label", "verdict")
"""Of the CSV: which sample, its label as given, the one it was found to have, and right, wrong or nothing yet."""
MOST_KEYS = 9
"""Classes that have a digit as their key; more are chosen from a list."""


class Card(NamedTuple):
    """A sample to be checked."""

    identity: str
    """What it is called in its data set."""
    given: int
    """Class index of its label."""
    picture: str
    """data: URI of an image; empty where there is none to show."""
    suggested: int | None = None
    """Class index that it may be of; None where nothing is suggested."""


def contact_sheet(
    cards: Sequence[Card], class_names: Sequence[str], title: str, csv_name: str, counted: str = "trusted so far"
) -> str:
    """One HTML page that needs no network and no other file.

    What was checked is kept by the browser, by the page's content, and comes back after a reload. The button writes the CSV
    that `data.trusted` and `data.corrections` read.

    Args:
        cards: in the order they are shown; those of a class together.
        class_names: by label.
        title: of the page.
        csv_name: of the file that the button saves.
        counted: what the samples are that were found to be of a class, beside their number.
    """
    digest = hashlib.sha256(json.dumps([list(class_names), [card[:2] for card in cards]]).encode()).hexdigest()[:16]
    facts = {
        "key": f"otrw-trusted-{digest}",
        "file": csv_name,
        "classes": list(class_names),
        "cards": [[card.identity, card.given, card.suggested] for card in cards],
    }
    sections: list[str] = []
    shown = -1
    for number, card in enumerate(cards):
        if card.given != shown:
            sections.append(("</div></section>" if sections else "") + _section_start(card.given, cards, class_names, counted))
            shown = card.given
        sections.append(_card(number, card, class_names))
    if sections:
        sections.append("</div></section>")
    script = json.dumps(facts).replace("<", "\\u003c")  # no identity can end the script
    keys = "".join(f"<li><kbd>{html.escape(key)}</kbd> {html.escape(what)}</li>" for key, what in _keys(cards, class_names))
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<title>{html.escape(title)}</title>'
        f"<style>{STYLE}{SHEET_STYLE}</style></head>\n<body><header><h1>{html.escape(title)}</h1>"
        f"<p>{PICTURES if any(card.picture for card in cards) else ROWS} Say so for as many as you can; what you leave open is "
        "not used. What is of none of the classes is wrong, with no class.</p>"
        f'<details><summary>Keys</summary><ul class="keylist">{keys}</ul></details></header>\n'
        '<div class="bar-top"><progress id="progress" value="0"></progress><span id="count" role="status"></span>'
        '<button id="next">Next open</button><button id="save">Save the CSV</button></div>\n'
        f"<main>{''.join(sections)}</main>\n<script>const sheet = {script};\n{SCRIPT}</script></body></html>\n"
    )


def _keys(cards: Sequence[Card], class_names: Sequence[str]) -> list[tuple[str, str]]:
    few = len(class_names) <= MOST_KEYS
    classes = [(str(number + 1), f"it is {name}") for number, name in enumerate(class_names)] if few else []
    wrong = "wrong; then its class" if few else "wrong; then type its class into the list"
    moves = [("arrows", "move"), ("n", "next that is open")]
    suggested = [("s", "it is what the page suggests")] if any(card.suggested is not None for card in cards) else []
    return [("r or space", "right, go on"), *suggested, ("w", wrong), *classes, ("u", "open again"), *moves]


def _section_start(label: int, cards: Sequence[Card], class_names: Sequence[str], counted: str) -> str:
    number = sum(card.given == label for card in cards)
    name = html.escape(class_names[label])
    so_far = f'<span data-trusted="{label}">0</span> {html.escape(counted)}'
    return f'<section><h2>{name} <small>{number} to check, {so_far}</small></h2><div class="sheet">'


def _card(number: int, card: Card, class_names: Sequence[str]) -> str:
    identity = html.escape(card.identity)
    picture = f'<img src="{card.picture}" alt="{identity}">' if card.picture else ""
    options = "".join(
        f'<option value="{label}">{html.escape(other)}</option>'
        for label, other in enumerate(class_names)
        if label != card.given
    )
    return (
        f'<article tabindex="-1" data-card="{number}" aria-label="{identity}">{picture}<b class="verdict"></b>'
        f'<small title="{identity}">{identity}</small><div class="buttons"><button data-do="right">right</button>'
        f'{_suggestion(card, class_names)}<button data-do="wrong">wrong</button></div>'
        f'<label>really <select><option value="">none of the classes</option>{options}</select></label></article>'
    )


def _suggestion(card: Card, class_names: Sequence[str]) -> str:
    if card.suggested is None:
        return ""
    return f'<button data-do="suggested">it is {html.escape(class_names[card.suggested])}</button>'


PICTURES = "Is the label of each picture right?"
ROWS = "These samples are no pictures: look each up where it came from, by its name or row. Is its label right?"
SHEET_STYLE = """
.bar-top { position: sticky; top: 0; z-index: 2; background: Canvas; display: flex; flex-wrap: wrap; gap: .4rem 1rem }
.bar-top { align-items: center; padding: .5rem 0; border-bottom: 1px solid var(--line) }
progress { flex: 1 1 8rem; height: 1rem } button, select { font: inherit }
button { border: 1px solid var(--line); border-radius: .4rem; padding: .3rem .7rem; background: var(--soft); color: inherit }
button { cursor: pointer; overflow-wrap: anywhere; min-height: 2.2rem }
h2 small { font-weight: normal; opacity: .7; font-size: .8em }
.keylist { columns: 12rem; margin: .3rem 0; padding-left: 1rem }
kbd { border: 1px solid var(--line); border-radius: .25rem; padding: 0 .3rem }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(10.5rem, 46%), 1fr)); gap: .7rem }
article { border: 3px solid var(--line); border-radius: .5rem; padding: .4rem; position: relative; min-width: 0 }
article { scroll-margin: 5rem 0 3rem }
article:focus { outline: 3px solid #0072b2; outline-offset: 2px }
article img { width: 100%; aspect-ratio: 1; object-fit: contain; display: block; background: var(--soft) }
article img.small { image-rendering: pixelated }
article > small { display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; opacity: .7; direction: rtl }
.buttons { display: flex; flex-wrap: wrap; gap: .3rem; margin-top: .3rem } .buttons button:first-child { flex: 1 }
article label { display: none; margin-top: .3rem } article label select { max-width: 100% }
article[data-verdict=right] { border-color: #009e73 } article[data-verdict=wrong] { border-color: var(--wrong) }
article[data-verdict=wrong] label { display: block }
.verdict { position: absolute; top: .6rem; left: .6rem; padding: 0 .4rem; border-radius: .3rem; color: #fff }
[data-verdict=right] .verdict { background: #007a59 } [data-verdict=wrong] .verdict { background: #b34700 }
"""

SCRIPT = """
const articles = [...document.querySelectorAll('article')];
// state[card] = null, or the class found: its number, -1 for none of the classes
let state = sheet.cards.map(() => null);
try {
  const kept = JSON.parse(localStorage.getItem(sheet.key));
  if (Array.isArray(kept) && kept.length === state.length) state = kept;
} catch (error) { /* what is kept is no JSON, or nothing can be kept */ }
let isKept = true;

function show(card) {
  const article = articles[card], found = state[card], given = sheet.cards[card][1];
  if (found === null) delete article.dataset.verdict;
  else article.dataset.verdict = found === given ? 'right' : 'wrong';
  const name = found === null ? '' : found === given ? 'right' : found < 0 ? 'no class' : sheet.classes[found];
  article.querySelector('.verdict').textContent = name;
  article.querySelector('select').value = found === null || found < 0 || found === given ? '' : String(found);
}
function count() {
  const checked = state.filter(found => found !== null).length;
  const wrong = state.filter((found, card) => found !== null && found !== sheet.cards[card][1]).length;
  document.querySelectorAll('[data-trusted]').forEach(span => {
    span.textContent = state.filter(found => found === Number(span.dataset.trusted)).length;
  });
  document.getElementById('progress').max = Math.max(1, state.length);
  document.getElementById('progress').value = checked;
  document.getElementById('count').textContent = `${checked} of ${state.length} checked, ${wrong} wrong`;
}
function judge(card, found) {
  state[card] = found;
  try { localStorage.setItem(sheet.key, JSON.stringify(state)); } catch (error) { isKept = false; }
  show(card);
  count();
}
function go(card) {
  if (card < 0 || card >= articles.length) return;
  articles[card].focus();
  articles[card].scrollIntoView({block: 'nearest'});
}
function nextOpen(card) {
  const after = state.findIndex((found, other) => other > card && found === null);
  go(after < 0 ? state.findIndex(found => found === null) : after);
}
function across(card, down) {  // the card below or above, at about the same place
  const own = articles[card].getBoundingClientRect();
  let best = -1, distance = Infinity;
  articles.forEach((article, other) => {
    const box = article.getBoundingClientRect(), gap = down * (box.top - own.top);
    if (gap > 5 && 10 * gap + Math.abs(box.left - own.left) < distance) {
      distance = 10 * gap + Math.abs(box.left - own.left);
      best = other;
    }
  });
  go(best);
}
function current() {
  const article = document.activeElement && document.activeElement.closest('article');
  return article ? Number(article.dataset.card) : -1;
}
document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === 'SUMMARY') return;
  const card = current(), key = event.key.toLowerCase();
  if (event.target.tagName === 'SELECT') {
    if (key === 'enter' || key === 'escape') { event.preventDefault(); nextOpen(card); }
    return;
  }
  if (event.target.tagName === 'BUTTON' && (key === ' ' || key === 'enter')) return;
  const digit = sheet.classes.length <= 9 && /^[1-9]$/.test(key) ? Number(key) - 1 : -1;
  const moves = {arrowright: 1, j: 1, arrowleft: -1, k: -1};
  if (key in moves) go(card < 0 ? 0 : card + moves[key]);
  else if (key === 'arrowdown' || key === 'arrowup') card < 0 ? go(0) : across(card, key === 'arrowdown' ? 1 : -1);
  else if (key === 'n') nextOpen(card);
  else if (card < 0) return;
  else if (key === 'r' || key === ' ') { judge(card, sheet.cards[card][1]); nextOpen(card); }
  else if (key === 's' && sheet.cards[card][2] !== null) { judge(card, sheet.cards[card][2]); nextOpen(card); }
  else if (key === 'w') { judge(card, -1); if (sheet.classes.length > 9) articles[card].querySelector('select').focus(); }
  else if (digit >= 0 && digit < sheet.classes.length) { judge(card, digit); nextOpen(card); }
  else if (key === 'u') judge(card, null);
  else return;
  event.preventDefault();
});
articles.forEach((article, card) => {
  const image = article.querySelector('img');
  if (image) {
    const mark = () => image.classList.toggle('small', image.naturalWidth < 100);
    image.complete ? mark() : image.addEventListener('load', mark);
  }
  article.addEventListener('click', event => {
    const button = event.target.closest('button');
    if (button) {
      const found = {right: sheet.cards[card][1], suggested: sheet.cards[card][2], wrong: -1}[button.dataset.do];
      judge(card, state[card] === found ? null : found);
    }
    if (event.target.tagName !== 'SELECT' && event.target.tagName !== 'OPTION') article.focus({preventScroll: true});
  });
  article.querySelector('select').addEventListener('change', event => {
    judge(card, event.target.value === '' ? -1 : Number(event.target.value));
  });
  show(card);
});
function csv() {
  const quote = text => /[",\\r\\n]/.test(text) || text !== text.trim() ? '"' + text.replaceAll('"', '""') + '"' : text;
  const rows = sheet.cards.map(([identity, given], card) => {
    const found = state[card], verdict = found === null ? '' : found === given ? 'right' : 'wrong';
    const label = found === null || found < 0 ? '' : sheet.classes[found];
    return [identity, sheet.classes[given], label, verdict].map(quote).join(',');
  });
  return 'identity,given_label,label,verdict\\n' + rows.join('\\n') + '\\n';
}
document.getElementById('next').addEventListener('click', () => nextOpen(current()));
document.getElementById('save').addEventListener('click', () => {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([csv()], {type: 'text/csv'}));
  link.download = sheet.file;
  link.click();
  isKept = true;
});
window.addEventListener('beforeunload', event => { if (!isKept) event.preventDefault(); });
count();
"""
