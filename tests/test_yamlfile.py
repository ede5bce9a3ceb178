"""YAML as people write it, and as nobody should."""

import io
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from ckgrow.errors import FileError, SpecError
from ckgrow.spec import yamlfile


def refusal(text):
    with pytest.raises(SpecError) as caught:
        yamlfile.loads(text, "spec.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1e-3", 0.001),
        ("-2.5E+3", -2500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("010", 10),
        ("0x10", 16),
        ("0o17", 15),
        ("+3", 3),
        ("no", "no"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        ("1e", "1e"),
        ("conv1", "conv1"),
        ("?x", "?x"),
        ("'12'", "12"),
        ('"true"', "true"),
        ("'~'", "~"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(word, value):
    found = yamlfile.loads(f"key: {word}", "spec").value["key"]
    assert found == value
    assert type(found) is type(value)


def test_a_key_is_text_however_it_looks():
    assert yamlfile.loads("{0: a, true: b, 1.5: c, x: d}", "spec").value == {
        "0": "a",
        "true": "b",
        "1.5": "c",
        "x": "d",
    }


names = st.text("abcxyz_", min_size=1, max_size=6)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | names | st.floats(-1e6, 1e6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(names, values, min_size=1, max_size=4), st.booleans())
def test_what_an_emitter_writes_is_read_as_another_reader_does(value, flow):
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = flow
    stream = io.StringIO()
    writer.dump(value, stream)
    assert yamlfile.loads(stream.getvalue(), "spec").value == YAML(typ="safe", pure=True).load(
        stream.getvalue()
    )


def test_every_value_knows_its_line():
    document = yamlfile.loads(
        "version: 1\n\nsteps:\n  - widen: a\n    to: 3\n  - {widen: b,\n     by: 1}\n", "s.yaml"
    )
    assert document.line(("version",)) == 1
    assert document.line(("steps",)) == 3
    assert document.line(("steps", 0)) == 4
    assert document.line(("steps", 0, "to")) == 5
    assert document.line(("steps", 1, "by")) == 7
    assert document.where(("steps", 1, "by")) == "s.yaml:7"


def test_the_line_of_what_is_not_there_is_that_of_what_is_around_it():
    document = yamlfile.loads("a: 1\nb:\n  c: 1\n", "s.yaml")
    assert document.line(("b", "d", 3)) == 2
    assert document.line(("z",)) == 1


def test_a_name_with_an_escape_in_it_is_not_printed_raw():
    assert yamlfile.loads("a: 1", "\x1b[31m.yaml").where(()) == r"'\x1b[31m.yaml':1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: &x 1", "spec.yaml:2: '&x' is a YAML anchor, which is not supported"),
        ("a: *b", "spec.yaml:1: '*b' is a YAML alias"),
        ("a: !!str 1", "is a YAML tag"),
        ("a: !run 1", "'!run' is a YAML tag"),
        ("a: !run [1]", "'!run' is a YAML tag"),
        ("a: 1\n<<: {b: 1}", "spec.yaml:2: '<<' merges mappings"),
        ("a: 1\n---\nb: 2", "spec.yaml:2: a second document starts here; keep one per file"),
        ("%YAML 1.1\n---\na: no", "a line that starts with '%' is not supported"),
        ("a: 1\nb: 2\na: 3", "spec.yaml:3: the key a was given before, in line 1"),
        ("a: {b: 1, b: 2}", "spec.yaml:1: the key b was given before, in line 1"),
        ("[a, b]: 1", "a list or mapping cannot be a key"),
        ("", "spec.yaml is empty"),
        ("# only a comment\n", "spec.yaml is empty"),
        ("a:\n\tb: 1", "spec.yaml:2: a tab stands where YAML wants spaces; use spaces"),
        ("a: " + "9" * 5000, "(5000 characters) is too long for a number; round it, or quote it"),
        ("a: 0." + "3" * 5000, "is too long for a number"),
        ("a: 1\nb: .inf", "spec.yaml:2: .inf is not a finite number"),
        ("a: .NaN", ".NaN is not a finite number"),
        ("a: 1e999", "1e999 is not a finite number"),
        ("a: \x1b[31m", "the character U+001B cannot stand here; remove it"),
        ("a: 1\nb: \x00", "spec.yaml:2: the character U+0000"),
        ("a: \u2028b", "the character U+2028"),
        ("a: 1\n b: 2", "spec.yaml:2: 'b: 2' is not YAML (mapping values are not allowed here)"),
        ('a: "\\d"', "unknown escape character 'd'"),
        ("a: 1\nb: 'x\nc: 1\n", "spec.yaml:2: the file ends before what starts here is closed"),
        ("a: [1, 2\n", "close the bracket or the quote"),
    ],
)
def test_what_is_refused_and_where(text, said):
    assert said in refusal(text)


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("steps:\n- widen: *conv # all", 'spec.yaml:2|quote the pattern: widen: "*conv"'),
        ("widen: *", 'quote the pattern: widen: "*"'),
        ("widen: *layer[34].c", 'quote the pattern: widen: "*layer[34].c"'),
        ("a: 1\nwiden: [34].*\nto: 2", 'spec.yaml:2|quote the pattern: widen: "[34].*"'),
        ("widen: {a,b}.c", 'quote the pattern: widen: "{a,b}.c"'),
        ("- [34].*\n- b", 'quote the pattern: "[34].*"'),
        ("widen: [conv*, *bn]", "quote every pattern in the list"),
        ("widen: [conv[12], x]", "quote every pattern in the list"),
        ('widen: *a"b', "quote the pattern"),
        ("widen: *a\ufeffb", "quote the pattern"),
    ],
)
def test_a_pattern_without_quotes_is_told_to_be_quoted(text, fix):
    said = refusal(text)
    assert said.isprintable()
    for part in fix.split("|"):
        assert part in said


def test_as_deep_as_allowed_and_one_deeper():
    def nested(depth):
        return "[" * depth + "]" * depth

    yamlfile.loads(nested(yamlfile.DEPTH), "spec")
    assert "nested more than 32 deep" in refusal(nested(yamlfile.DEPTH + 1))


def test_many_lists_side_by_side_are_not_deep():
    assert len(yamlfile.loads("[" + "[]," * 100 + "]", "spec").value) == 100


@pytest.mark.parametrize(
    "text",
    [
        "[" * 40_000,
        "{" * 40_000,
        "- " * 40_000,
        "? " * 40_000,
        "[a," * 40_000,
        "- a\n" * 100_000,
        "[" + "a," * 200_000,
        "a: &a [*a,*a]",
    ],
)
def test_bombs_are_refused_quickly(text):
    started = time.perf_counter()
    refusal(text)
    assert time.perf_counter() - started < 2  # a tenth of it on an idle machine


def test_messages_are_one_line_without_control_characters():
    long = "b" * 100_000
    for text in (f"a: *{long}", f"{long}: :", f"%{long}", f"'a {long}' {long}", f"!{long}!c d"):
        said = refusal(text)
        assert said.isprintable()
        assert len(said) < 500


@given(st.text(st.sampled_from("ab01:-[]{}*&!|>'\"#%?,.<~\\ \n\t\ufeff\xa0"), max_size=40))
def test_any_text_is_read_or_refused_in_one_line(text):
    said = ""
    try:
        yamlfile.loads(text, "spec")
    except SpecError as refused:
        said = str(refused)
    assert said.isprintable()


def test_a_file_is_read_with_its_name(tmp_path):
    path = tmp_path / "a spec.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: \xc3\xbc\r\n")
    document = yamlfile.load(path)
    assert document.value == {"a": 1, "b": "ü"}
    assert document.where(("b",)) == f"{path}:2"


def test_bytes_that_are_not_utf_8_are_refused_with_their_line(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(SpecError, match=r"spec\.yaml:2: byte 0xff is not UTF-8"):
        yamlfile.load(path)


def test_a_file_that_is_too_large_is_refused_unread(tmp_path):
    path = tmp_path / "spec.yaml"
    with path.open("wb") as file:
        file.truncate(10**9)
    started = time.perf_counter()
    with pytest.raises(SpecError, match="larger than 1000000 bytes"):
        yamlfile.load(path)
    assert time.perf_counter() - started < 1


def test_what_is_not_a_file_is_refused_without_waiting(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(FileError, match="not a regular file"):
        yamlfile.load(pipe)
    with pytest.raises(FileError, match="not a regular file"):
        yamlfile.load("/dev/zero")
    with pytest.raises(FileError, match="is a folder"):
        yamlfile.load(tmp_path)


def test_what_cannot_be_read_is_a_file_error(tmp_path):
    with pytest.raises(FileError, match="cannot be read: no such file; check the path"):
        yamlfile.load(tmp_path / "missing.yaml")
    with pytest.raises(FileError, match="cannot be read"):
        yamlfile.load("nul\x00.yaml")
