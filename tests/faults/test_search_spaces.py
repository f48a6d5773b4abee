"""Generated spaces of a search: settings inside what was written, or one line."""

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otrw.config.settings import leaves
from otrw.errors import UserError
from otrw.tuning.space import LISTS, RANGES, load_space, sample_settings, to_plain

pytestmark = pytest.mark.timeout(120)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["1e-3", "9" * 400, ".inf", "semi_relaxed"]),
)
values = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=2))
)
numbers = st.one_of(st.integers(-3, 9), st.floats(-2, 9, allow_nan=False)).map(lambda x: round(x, 3))
ranges = st.tuples(st.sampled_from(RANGES), st.lists(numbers, min_size=2, max_size=2)).map(lambda pair: {pair[0]: pair[1]})
lists = st.tuples(st.sampled_from(LISTS), st.lists(st.one_of(numbers, scalars), max_size=4)).map(
    lambda pair: {pair[0]: pair[1]}
)
spaces = st.dictionaries(
    st.one_of(*[st.sampled_from(sorted(leaves()))] * 9, st.text(max_size=9)),
    st.one_of(*[ranges] * 4, *[lists] * 3, values),
    max_size=3,
)


@settings(max_examples=150, deadline=30_000, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(*[spaces] * 5, values), seed=st.integers(0, 99))
def test_any_space_is_searched_as_it_is_written_or_refused_in_one_line(content, seed, tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    try:
        space = load_space(str(path))
    except UserError as error:
        message = str(error)
        assert 0 < len(message) < 1000
        assert "\n" not in message
        return
    assert list(space) == list(content)
    for key, value in sample_settings(space, 3, seed).items():
        ((kind, given_values),) = content[key].items()
        if kind in LISTS:
            assert value in given_values or value is None
        else:
            low, high = map(float, given_values)
            assert low <= value <= high
            assert not isinstance(value, np.generic)
    assert list(to_plain(space)) == list(content)
