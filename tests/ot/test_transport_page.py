"""The page on transport alone: its example runs and does what it says, and what it links to exists."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "analysis" / "TRANSPORT.md"


def test_the_example_solves_in_few_passes_and_goes_on_in_fewer(capsys):
    names, plan, example = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    for code in (names, plan, example):
        exec(compile(code, "TRANSPORT.md", "exec"), {})
    met, first, *steps = capsys.readouterr().out.splitlines()
    assert float(re.search(r"error (\S+),", met)[1]) <= 1e-4
    assert met.endswith("converged True")
    assert first.startswith("newton: marginal error")
    assert float(re.search(r"error (\S+)", first)[1]) <= 1e-4
    assert int(re.search(r"after (\d+) passes", first)[1]) <= 30
    passes = [int(re.search(r"(\d+) passes", line)[1]) for line in steps]
    assert len(passes) == 3
    assert max(passes[1:]) <= 3


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^):]+)\)", PAGE.read_text(encoding="utf-8")):
        assert (PAGE.parent / target).exists(), target
