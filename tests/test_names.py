"""Foreign names: printing, guessing, sorting, matching."""

import fnmatch
import itertools
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckgrow.errors import SpecError
from ckgrow.names import PATTERN_LENGTH, SHOWN_LENGTH, Pattern, natural_key, nearest, shown

LAYERS = ["conv1", "layer3.0.conv1", "layer3.10.conv1", "layer4.0.conv2", "layer4.0.bn1", "fc"]


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("layer1.0.conv1", "layer1.0.conv1"),
        ("module.ünï-code/x:0", "module.ünï-code/x:0"),
        ("", "''"),
        ("a b", "'a b'"),
        ("it's", r"'it\'s'"),
        ("a\\b", r"'a\\b'"),
        ("a\nb\x00", r"'a\nb\x00'"),
        ("\x1b[31mred", r"'\x1b[31mred'"),
        ("\u202egpj.exe", r"'\u202egpj.exe'"),
        ("\ud800", r"'\ud800'"),
    ],
)
def test_shown(name, printed):
    assert shown(name) == printed


def test_shown_shortens_in_the_middle_and_says_how_long_the_name_is():
    printed = shown("a" * 500_000 + "z" * 500_000)
    assert printed.startswith("'aaaa")
    assert printed.endswith("zzzz' (1000000 characters)")
    assert len(printed) < SHOWN_LENGTH + 30


@given(st.text(st.characters(), max_size=200))
def test_shown_is_one_printable_line_and_short(name):
    printed = shown(name)
    assert printed.isprintable()
    assert len(printed) <= SHOWN_LENGTH + 30
    printed.encode("utf-8")


@given(st.text(st.characters(), max_size=30))
def test_shown_names_differ_when_the_names_do(name):
    if shown(name).startswith("'") and "..." not in shown(name):
        assert eval(shown(name)) == name


def test_nearest_finds_typos_whatever_their_case():
    assert nearest("facter", ["to", "factor", "by"]) == ["factor"]
    assert nearest("CONV1", ["fc", "conv1"]) == ["conv1"]
    assert nearest("xyz", ["to", "factor"]) == []


def test_nearest_adds_names_that_contain_the_word():
    assert nearest("conv1", ["layer1.0.conv1", "fc", "conv2"]) == ["conv2", "layer1.0.conv1"]


def test_nearest_keeps_to_the_number_asked_for():
    assert len(nearest("conv", [f"conv{i}" for i in range(9)], 2)) == 2


def test_nearest_does_not_look_at_names_that_are_very_long_or_very_many():
    assert nearest("conv", ["conv" + "x" * 1000, "conv1"]) == ["conv1"]
    assert nearest("conv" * 100_000, ["conv" * 40])
    assert nearest("tensor.0", (f"tensor.{i}" for i in itertools.count()), 1) == ["tensor.0"]


def test_natural_key_compares_numbers_as_numbers():
    names = ["layers.10", "layers.9", "layers.9.bias", "a", "a10b2", "a10b10", "a9", "layers"]
    assert sorted(names, key=natural_key) == [
        "a", "a9", "a10b2", "a10b10", "layers", "layers.9", "layers.9.bias", "layers.10",
    ]  # fmt: skip


def test_natural_key_looks_through_leading_zeros():
    assert sorted(["a9", "a010", "a01"], key=natural_key) == ["a01", "a9", "a010"]


def test_natural_key_takes_more_digits_than_python_converts():
    assert natural_key("a" + "1" * 5000) < natural_key("a" + "2" * 5000)


@given(st.lists(st.text("a0123.", max_size=6), unique=True))
def test_natural_key_tells_all_names_apart(names):
    assert len({natural_key(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("conv1", ["conv1"]),
        ("*", LAYERS),
        ("*conv1", ["conv1", "layer3.0.conv1", "layer3.10.conv1"]),
        ("layer[34].*.conv?", ["layer3.0.conv1", "layer3.10.conv1", "layer4.0.conv2"]),
        ("layer[!3].*", ["layer4.0.conv2", "layer4.0.bn1"]),
        ("layer[a-c4-9].*bn1", ["layer4.0.bn1"]),
        ("layer4.0.{bn1,conv[12]}", ["layer4.0.conv2", "layer4.0.bn1"]),
        ("{conv1,fc}", ["conv1", "fc"]),
        ("layer3.0*conv1*", ["layer3.0.conv1"]),
        ("**fc**", ["fc"]),
        ("conv", []),
        ("CONV1", []),
        ("conv1.", []),
        ("layer3?0?conv1", ["layer3.0.conv1"]),
        ("f{c,}{,c}", ["fc"]),
    ],
)
def test_pattern(pattern, matching):
    assert [name for name in LAYERS if Pattern(pattern).matches(name)] == matching


def test_a_dot_in_a_pattern_is_a_dot():
    assert not Pattern("a.b*").matches("axb1")


def test_a_name_matches_the_pattern_spelled_like_it():
    assert Pattern("blocks[0].conv").matches("blocks[0].conv")


def test_stars_match_line_breaks_too():
    assert Pattern("a*b").matches("a\n\nb")


@pytest.mark.parametrize("text", ["conv1", "layer1.0", "a]b", "a}b", "a,b"])
def test_a_name_is_literal(text):
    assert Pattern(text).is_literal
    assert Pattern(text).matches(text)


@pytest.mark.parametrize("text", ["*", "a?", "[ab]", "{a,b}"])
def test_a_glob_is_not_literal(text):
    assert not Pattern(text).is_literal


@given(st.text("ab*?", min_size=1, max_size=8), st.text("ab", max_size=8))
def test_patterns_agree_with_the_standard_library(pattern, name):
    assert Pattern(pattern).matches(name) == fnmatch.fnmatchcase(name, pattern)


def test_braces_agree_with_their_alternatives_written_out():
    generator = random.Random(0)
    pieces = ["a", "b*", "?", "[ab]", ""]
    for _ in range(200):
        before, one, two, after = generator.choices(pieces, k=4)
        braces = Pattern(f"{before}{{{one},{two}}}{after}")
        for name in map("".join, itertools.product("ab", repeat=3)):
            alternatives = (f"{before}{middle}{after}" for middle in (one, two))
            assert braces.matches(name) == any(
                fnmatch.fnmatchcase(name, alternative) for alternative in alternatives
            )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a pattern is empty"),
        ("a[b", "'a[b' has a '[' without its ']'"),
        ("a{b", "'a{b' has a '{' without its '}'"),
        ("{a,{b,c}}", "braces inside braces"),
        ("[]", "write [34] for one of these"),
        ("[!]", "write [34] for one of these"),
        ("[^0]", "[!34] for any other"),
        ("[9-0]", "range 9-0, which is empty"),
        ("a" * (PATTERN_LENGTH + 1), "longer than 200 characters"),
        ("{a,b}" * 7, "more than 64 patterns"),
    ],
)
def test_broken_patterns_are_refused(text, said):
    with pytest.raises(SpecError) as caught:
        Pattern(text)
    assert said in str(caught.value)


def test_no_pattern_takes_long():
    name = "a" * 100_000
    started = time.perf_counter()
    for text in ("*a" * 90 + "*b", "{*a*a,*a*a*a}" * 6 + "b", "?*" * 90 + "b", "*[ab]" * 30 + "c"):
        assert not Pattern(text).matches(name)
    assert time.perf_counter() - started < 5
