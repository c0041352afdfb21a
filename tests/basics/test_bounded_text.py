"""Foreign JSON and YAML within limits: what is read is what the plain readers read; what is too much is refused before it is made."""

import contextlib
import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from basics import bounded_text
from basics.bounded_text import CARD, SCENARIO, SETTINGS, Limits, TextProblem, TooMuch, load_json, load_yaml, read_text

SMALL = Limits(size=2000, values=100, depth=4, word=50)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=30,
)


def count(value):
    if isinstance(value, dict):
        return 1 + len(value) + sum(count(inner) for inner in value.values())
    return 1 + sum(count(inner) for inner in value) if isinstance(value, list) else 1


def depth(value):
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max((depth(one) for one in inner), default=0) if isinstance(value, dict | list) else 0


@given(VALUES)
def test_what_is_within_the_limits_is_read_as_it_is(value):
    assert load_json(json.dumps(value), CARD) == value
    text = yaml.safe_dump(value, allow_unicode=True)
    assert load_yaml(text, SETTINGS) == yaml.safe_load(text)


@given(VALUES, st.integers(1, 40), st.integers(1, 5))
def test_nothing_with_more_values_or_levels_is_read(value, values, levels):
    limits = Limits(10**6, values, levels)
    for read, text in ((load_json, json.dumps(value)), (load_yaml, yaml.safe_dump(value))):
        try:
            found = read(text, limits)
        except TooMuch:
            continue
        assert count(found) <= values and depth(found) <= levels


@pytest.mark.parametrize(
    "text",
    [
        "x" * 2001, "[" * 100_000, "[[[[[1]]]]]", '{"a":{"a":{"a":{"a":{"a":1}}}}}', f"[{'{},' * 200}1]",
        json.dumps(["y" * 51]), json.dumps({"y" * 51: 1}), json.dumps({"a": [{"b": "é" * 51}]}),
    ],
)  # fmt: skip
def test_json_beyond_a_limit_is_too_much(text):
    with pytest.raises(TooMuch):
        load_json(text, SMALL)


@pytest.mark.parametrize("text", ["", "{", "[1,]", "nope", '"\ud800', "1" * 1500 + "x"])
def test_what_is_not_json_is_told_from_what_is_too_much(text):
    with pytest.raises(TextProblem) as problem:
        load_json(text, SMALL)
    assert not isinstance(problem.value, TooMuch)


def test_a_number_of_more_digits_than_python_reads_is_a_problem_of_the_text():
    with pytest.raises(TextProblem):
        load_json("1" * 5000, CARD)
    with pytest.raises(TextProblem):
        load_yaml("a: " + "1" * 5000, SCENARIO)


def aliases(levels, each=9):
    """A text of a few bytes that stands for each ** levels values."""
    lines = [f"x0: &x0 [{', '.join('a' * each)}]"]
    return "\n".join(lines + [f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * each)}]" for i in range(1, levels)])


def test_aliases_count_as_all_that_they_repeat():
    text = aliases(3)
    assert count(yaml.safe_load(text)) == count(load_yaml(text, SETTINGS)) == 925
    with pytest.raises(TooMuch, match="aliases repeat"):
        load_yaml(text, Limits(10**6, 924))
    with pytest.raises(TooMuch) as problem:
        load_yaml(aliases(9), SCENARIO)
    assert problem.value.line == 7, "where the limit is exceeded"


def test_a_merged_mapping_counts_as_often_as_it_is_merged():
    text = "a: &a {b: 1, c: 2}\n" + "".join(f"d{i}: {{<<: *a}}\n" for i in range(20))
    assert load_yaml(text, SETTINGS)["d7"] == {"b": 1, "c": 2}
    with pytest.raises(TooMuch):
        load_yaml(text, Limits(10**6, 100))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a [*a]", "part of"),
        ("a: *b", "alias"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine"),
        ("a: !secret x", "not a standard one"),
        ("a: 2001-13-45", "cannot be read"),
        ("a: [1, 2", "did not find"),
        ("a: 1\x01", "is not YAML"),
        ("a: 1\n---\nb: 2", "another document"),
        ("{[1, 2]: 3}", "unhashable"),
    ],
)
def test_a_text_that_no_settings_are_is_a_problem_and_no_other_error(text, said):
    with pytest.raises(TextProblem, match=said):
        load_yaml(text, SETTINGS)


@pytest.mark.parametrize("text", ["[" * 5000, "- " * 400 + "a", "a: " + ":".join("1" * 4000), "? " * 400])
def test_yaml_beyond_a_limit_is_too_much(text):
    with pytest.raises(TooMuch):
        load_yaml(text, SCENARIO)


@given(st.text(alphabet=st.sampled_from("[]{}&*a!?:-,'\"| \n<0123.")))
def test_no_text_raises_anything_else(text):
    for read in (load_json, load_yaml):
        with contextlib.suppress(TextProblem):
            read(text, SMALL)


def test_no_more_of_a_file_is_read_than_the_limits_allow(tmp_path):
    file = tmp_path / "long.yaml"
    file.write_text("é" * 1000)
    assert read_text(file, SMALL) == "é" * 1000
    with open(file, "ab") as out:
        out.truncate(10**12)  # a terabyte of nothing
    with pytest.raises(TooMuch):
        read_text(file, SMALL)


def test_the_python_parser_refuses_the_same(monkeypatch):
    monkeypatch.setattr(bounded_text, "_LOADER", yaml.SafeLoader)
    for text in (aliases(9), "[" * 500, "a: !secret x"):
        with pytest.raises(TextProblem):
            load_yaml(text, SCENARIO)
