"""Names from records in every format of the table: no formula, no broken row, no markup of their own."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otrw.analysis import formats
from otrw.analysis.table import Block, Cell, Line
from otrw.records.experiments import Setting

NASTY = ["=1+1", "+cmd", "-2", "@a", "a|b", "a\nb", "<b>x</b>", "\\input{x}", "[link](x)", "*a*", "a & b % c", "\x1b[31mred"]


def block_of(name):
    line = Line(name, name, name, "77+77", {10.0: Cell(-1.5, None, 2, "-1.5", True)}, "ot", (name,))
    return Block(Setting("digits", "none", 0.0), name, "error", (10.0,), (line,), ())


def check(name):
    blocks = [block_of(name)]
    written = name.replace("\r", "\n")
    (row,) = csv.DictReader(io.StringIO(formats.table_csv(blocks), newline=""))
    assert row["mean"] == "-1.5"  # a number stays one
    assert row["method"] == (f"'{written}" if written.startswith(("=", "+", "-", "@", "\t", "\n")) else written)
    rows = [line for line in formats.markdown(blocks).splitlines() if line.startswith("| ")]
    assert len(rows) == 3
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in rows} == {7}
    html = formats.html_page(blocks)
    assert html.count("<td>") == 3
    assert html.count("<b>") == 1
    latex = formats.latex(blocks)
    (body,) = [line for line in latex.splitlines() if line.endswith(r"\\") and "77+77" in line]
    assert not body.startswith(("[", "*"))
    assert len(re.findall(r"(?<!\\)&", body)) == 4
    assert "\\input" not in latex
    assert "\x1b" not in formats.plain(blocks)


@pytest.mark.parametrize("name", NASTY)
def test_a_nasty_name(name):
    check(name)


@given(st.text(alphabet=st.sampled_from("ab =+-@|\n\r\t<>&%$#_{}~^\\[]*`'\"\x1b\u2028"), min_size=1, max_size=8))
def test_any_name(name):
    check(name)


def test_there_are_letters_for_any_number_of_footnotes():
    assert [formats._letters(number) for number in (0, 25, 26, 27, 52)] == ["a", "z", "aa", "ab", "ba"]
