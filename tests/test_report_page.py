"""The report page: what it says, what it draws, what it does with names it does not trust."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from report_pages import HOSTILE, evidence, grown, refuted, renamed
from safetensors.numpy import load_file, save_file
from shipped import TEACHERS

from ckgrow import spec as language
from ckgrow.errors import FileError
from ckgrow.maps import ChannelMap, fresh
from ckgrow.reports.page import heatmap
from ckgrow.reports.page.composition import page
from ckgrow.reports.page.figures import number
from ckgrow.reports.page.histogram import Marks, histogram
from ckgrow.reports.page.layers import Change, Layer, changes
from ckgrow.reports.page.markup import tag, text
from ckgrow.reports.page.matrices import layout
from ckgrow.reports.page.png import encode
from ckgrow.reports.page.stages import stages
from ckgrow.reports.page.story import yaml
from ckgrow.reports.page.tables import anything
from ckgrow.reports.page.verdict import headline
from ckgrow.reports.page.weights import chosen
from ckgrow.reports.page.writing import ReportFile
from ckgrow.verdict.comparison import Pair

WIDER = {"steps": [{"widen": ["0", "2"], "factor": 1.5, "noise": {"kind": "zero-sum"}}]}
DEEPER = {
    "teacher": {
        "architecture": "convnet",
        "options": {
            "input": [1, 8, 8],
            "pool": {"conv1": "max 2", "conv2": "max 2"},
            "activation": "relu",
        },
    },
    "steps": [
        {"deepen": "conv1", "layers": 1, "method": "net2deeper"},
        {"widen": "conv3", "factor": 2, "method": "r2wider"},
        {"kernel": "conv2", "to": 5},
    ],
}


@pytest.fixture(scope="module")
def mlp(tmp_path_factory):
    return grown(tmp_path_factory.mktemp("mlp"), "mlp", WIDER)


@pytest.fixture(scope="module")
def convnet(tmp_path_factory):
    return grown(tmp_path_factory.mktemp("convnet"), "convnet", DEEPER)


class Reader(HTMLParser):
    """What a page consists of: its tags, its text, and whether every tag is closed."""

    EMPTY = ("meta", "br")

    def __init__(self, source):
        super().__init__()
        self.tags, self.said, self.open = [], [], []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.said.append(data)

    @property
    def words(self):
        return "".join(self.said)


def test_page_says_what_the_verdict_is_and_what_it_rests_on(mlp):
    read = Reader(page(mlp))
    document = mlp.document
    for said in (
        "Function preserved",
        "48 → 72 channels",
        "32 → 48 channels",
        "2 layers wider; 1 layer as wide as before",
        "5,018",
        "logits",
        document.inputs,
        document.tolerance,
        document.runtimes[0],
        document.hashes["teacher"],
        document.hashes["student"],
        "activation",
        "noise: {kind: zero-sum}",
        "generation 1",
    ):
        assert said in read.words, said


def test_page_is_one_file_without_script(mlp):
    source = page(mlp)
    read = Reader(source)
    assert "http:" not in source
    assert "https:" not in source
    assert not {name for name, _ in read.tags} & {"script", "link", "iframe", "object", "base"}
    assert all(not key.startswith("on") for _, attributes in read.tags for key in attributes)
    addresses = [
        attributes[key]
        for _, attributes in read.tags
        for key in ("href", "src", "srcset")
        if key in attributes
    ]
    assert all(each.startswith(("#", "data:image/png;base64,")) for each in addresses)
    policy = [each for name, each in read.tags if "http-equiv" in each]
    assert policy[0]["content"].startswith("default-src 'none'")


def test_equal_evidence_makes_equal_pages(mlp):
    assert page(mlp) == page(replace(mlp))


def test_anchors_lead_to_sections(mlp):
    read = Reader(page(mlp))
    known = {attributes["id"] for _, attributes in read.tags if "id" in attributes}
    assert {each["href"][1:] for name, each in read.tags if name == "a"} == known


def test_nothing_foreign_becomes_markup(mlp):
    plain = Reader(page(replace(mlp, student=without_record(mlp.student))))
    source = page(renamed(mlp, HOSTILE))
    hostile = Reader(source)
    assert [name for name, _ in hostile.tags if name == "script"] == []
    assert "\0" not in source
    assert "\u202e" not in source
    source.encode("utf-8")  # half a character would not be
    assert "<script>alert('1')</script>" in hostile.words
    assert "\\x00" in hostile.words
    assert "\\u202e" in hostile.words
    names = [name for name, _ in hostile.tags if name not in ("span", "p", "b", "code")]
    assert set(names) <= {name for name, _ in plain.tags} | {"h3", "section"}


def without_record(side):
    return replace(side, provenance=None)


def test_attributes_are_escaped():
    assert tag("p", "a<b", title='"><script>') == ('<p title="&quot;&gt;&lt;script&gt;">a&lt;b</p>')
    assert text("a\nb\tc\x1b[0m") == "a\nb\\tc\\x1b[0m"


@pytest.mark.parametrize(
    ("preserved", "expected", "proof", "tone", "title"),
    [
        (True, False, None, "good", "Function preserved"),
        (True, False, "proven", "good", "Function preserved"),
        (True, False, "refuted", "bad", "Refuted"),
        (False, True, None, "warn", "Not preserved, as the plan said"),
        (False, False, None, "bad", "Not preserved"),
    ],
)
def test_headline(mlp, preserved, expected, proof, tone, title):
    document = replace(mlp.document, preserved=preserved, expected=expected, proof=proof)
    said = headline(document)
    assert (said.tone, said.title) == (tone, title)
    assert ("proven for every input" in said.says) == (proof == "proven")


def test_broken_student_shows_where_and_how_much(mlp):
    broken = refuted(mlp)
    read = Reader(page(broken))
    assert "Not preserved" in read.words
    assert "1 layer whose activations depart though what goes in agrees: 2" in read.words
    size = broken.pairs["logits"].teacher.size
    assert f"{size} values, {size} above the tolerance" in read.words
    assert next(chosen(broken, changes(broken))).why == "the first layer that departs"


def test_networks_that_cannot_be_compared(mlp):
    document = replace(mlp.document, preserved=False, reason="the inputs differ", outputs=())
    document = replace(document, runtimes=(), tolerance="")
    bare = replace(mlp, document=document, pairs={}, double_pairs={}, deviations=())
    read = Reader(page(bare))
    assert "The inputs differ." in read.words
    assert "none: nothing was run" in read.words
    titles = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert titles == ["before-and-after", "weights", "what-it-rests-on", "how-it-was-made"]


def test_student_without_record(tmp_path):
    found = grown(tmp_path, "mlp", WIDER)
    found.student.reader.close()
    bare = tmp_path / "bare.safetensors"
    save_file(load_file(tmp_path / "student.safetensors"), bare)
    source = page(evidence(TEACHERS / "mlp.safetensors", bare))
    words = Reader(source).words
    assert "carries no record of its making" in words
    assert "48 → 72 channels" in words
    assert "what each of the student's channels is" not in words


def test_record_of_another_teacher_is_not_believed(mlp):
    other = replace(mlp.document, hashes={**mlp.document.hashes, "teacher": "0" * 64})
    found = replace(mlp, document=other)
    assert found.record is None
    assert "tells of another teacher" in Reader(page(found)).words


def test_what_became_of_layers(convnet):
    kinds = {each.layer.name: each.kind for each in changes(convnet)}
    assert kinds == {
        "conv1": "same",
        "conv1_grown1": "new",
        "conv2": "kernel",
        "conv3": "wider",
        "fc1": "same",
        "fc2": "same",
    }


def test_layers_are_followed_where_names_shift(tmp_path):
    """In an nn.Sequential the layer inserted behind "0" takes the name of the teacher's next."""
    stated = {"architecture": "mlp", "options": {"activation": "relu"}}
    found = grown(tmp_path, "mlp", {"teacher": stated, "steps": [{"deepen": "0", "layers": 1}]})
    assert [(each.teacher and each.teacher.name, each.layer.name) for each in changes(found)] == [
        ("0", "0"),
        (None, "2"),
        ("2", "4"),
        ("4", "6"),
    ]


def test_layers_that_only_one_side_has(mlp, convnet):
    found = changes(replace(mlp, student=without_record(convnet.student)))
    kinds = [each.kind for each in found]
    assert kinds == ["new"] * 6 + ["gone"] * 3
    Reader(page(replace(mlp, student=without_record(convnet.student))))


def layer(name: str, rank: int) -> Change:
    made = Layer(name, "Conv", f"{name}.weight", (8, 8, 3, 3), 8, rank)
    return Change(made, made)


def test_stages_of_names():
    names = (
        "conv1",
        "layer1.0.conv1",
        "layer1.0.conv2",
        "layer1.1.conv1",
        "incept.left.conv",
        "fc",
    )
    found = stages([layer(name, rank) for rank, name in enumerate(names)])
    assert [each.name for each in found] == ["conv1", "layer1", "incept", "fc"]
    assert [each.name for each in found[1].blocks] == ["layer1.0", "layer1.1"]


def test_stages_inside_one_name():
    names = [f"encoder.{part}.{number}.conv" for part in "abc" for number in range(2)]
    found = stages([layer(name, rank) for rank, name in enumerate([*names, "fc"])])
    assert [each.name for each in found] == ["encoder.a", "encoder.b", "encoder.c", "fc"]


def test_layers_of_one_rank_stand_beside_each_other():
    names = {"block.left": 1, "block.right": 1, "block.last": 2, "a": 3, "b": 4, "c": 5}
    block = stages([layer(name, rank) for name, rank in names.items()])[0].blocks[0]
    rows = [[each.layer.name for each in row] for row in block.rows]
    assert rows == [["block.left", "block.right"], ["block.last"]]


def test_chosen_weights(convnet):
    found = {each.layer.name: each for each in chosen(convnet, changes(convnet))}
    assert {name: each.why for name, each in found.items()} == {
        "conv3": "makes more channels than before",
        "fc1": "reads the channels of conv3",
        "conv1_grown1": "inserted (identity)",
        "conv2": "has a larger kernel than before",
    }
    widened = found["conv3"].student
    width = found["conv3"].layer.width
    cells = len(widened.cells) // width
    kinds = heatmap.kinds(widened.rows)[::cells]
    assert kinds == ["kept"] * (width // 2) + ["fresh"] * (width // 2)
    # U, U: both halves of the new channels are one block
    new = widened.cells[len(widened.cells) // 2 :]
    np.testing.assert_array_equal(*np.split(new, 2))
    assert found["conv1_grown1"].teacher is None
    # the reader's columns follow the channels through the flatten: V, -V
    reader = found["fc1"].student
    half = reader.cells.shape[1] // 2
    assert heatmap.kinds(reader.columns) == ["kept"] * half + ["fresh"] * half
    new = reader.cells[:, reader.cells.shape[1] // 2 :]
    np.testing.assert_array_equal(new[:, : new.shape[1] // 2], -new[:, new.shape[1] // 2 :])


def test_kinds_of_channels():
    known = ChannelMap.of(2, [0, 1, 1, *fresh([0, 0]), -1, 0])
    assert heatmap.kinds(known) == ["kept", "kept", "copy", "fresh", "fresh", "zero", "copy"]


@pytest.mark.parametrize(
    ("shape", "cells"),
    [((5, 4), (5, 4)), ((5, 4, 1, 1), (5, 4)), ((5, 4, 3, 2), (15, 8)), ((5, 1, 3, 3), (5, 9))],
)
def test_layouts_show_every_weight(shape, cells):
    weights = np.arange(np.prod(shape)).reshape(shape)
    _, lay_out = layout(shape)
    made = lay_out(weights)
    assert made.shape == cells
    assert sorted(made.ravel()) == sorted(weights.ravel())


def test_tiles_keep_each_kernel_together():
    weights = np.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2)
    _, lay_out = layout(weights.shape)
    np.testing.assert_array_equal(lay_out(weights)[2:4, 4:6], weights[1, 2])


def test_large_kernels_are_summed():
    weights = np.ones((300, 200, 3, 3))
    how, lay_out = layout(weights.shape)
    assert how == "a cell is the sum over a kernel"
    assert (lay_out(weights) == 9).all()


def test_coarse_pictures_keep_a_diagonal():
    drawn = heatmap._coarsened(np.eye(1000), 4, 4)
    np.testing.assert_array_equal(drawn, np.eye(250))


def test_zero_is_blank_and_signs_have_their_colours():
    cells = np.array([[0.0, 1.0, -1.0, 1e-6]])
    picture = encode(heatmap._pixels(cells, 1.0), heatmap._palette())
    colours = np.asarray(Image.open(io.BytesIO(picture)).convert("RGBA"))[0]
    assert colours[0, 3] == 0
    assert tuple(colours[1]) == (*heatmap._POSITIVE, 255)
    assert tuple(colours[2]) == (*heatmap._NEGATIVE, 255)
    assert tuple(colours[3]) == (*heatmap._POSITIVE, heatmap._FAINTEST)


def test_pictures_are_what_was_encoded():
    random = np.random.default_rng(0)
    palette = [tuple(map(int, random.integers(0, 256, 4))) for _ in range(200)]
    pixels = random.integers(0, 200, (37, 61)).astype(np.uint8)
    read = np.asarray(Image.open(io.BytesIO(encode(pixels, palette))).convert("RGBA"))
    np.testing.assert_array_equal(read, np.array(palette, np.uint8)[pixels])


def bars(drawing, kind):
    """(count, left) of every bar of a class."""
    found = re.findall(
        rf'<rect x="([\d.]+)"[^>]*class="{kind}"><title>([\d,]+) value', str(drawing)
    )
    return [(int(count.replace(",", "")), float(left)) for left, count in found]


def test_histogram_counts_every_value():
    random = np.random.default_rng(0)
    teacher = random.normal(size=(50, 10))
    change = 10.0 ** random.uniform(-9, -5, teacher.shape)
    change[:7] = 0
    drawing = histogram(Pair(teacher, teacher + change), Marks(1e-6, 1e-7), "float64")
    counted = bars(drawing, "within") + bars(drawing, "over")
    assert sum(count for count, _ in counted) == teacher.size
    zeros = min(counted, key=lambda bar: bar[1])
    assert zeros[0] == 70
    assert sum(count for count, _ in bars(drawing, "over")) == pytest.approx(
        (change > 1e-6).sum(),
        abs=12,  # a bar is as wide as a twelfth of a power of ten
    )
    assert f"{(change > 1e-6).sum()} above the tolerance" in str(drawing)


def test_histogram_of_equal_outputs():
    same = np.ones((4, 3), np.float32)
    drawing = str(histogram(Pair(same, same), Marks(1e-6, 1e-7), "float32"))
    assert "12 values, 12 without any difference, none above" in re.sub("<[^>]*>", "", drawing)
    assert bars(drawing, "over") == []


def test_histogram_with_a_tolerance_of_zero():
    same = np.ones((4, 3), np.float32)
    assert "none above" in histogram(Pair(same, same), Marks(0.0), "float32")
    assert "12 above" in histogram(Pair(same, same + 1), Marks(0.0), "float32")


@pytest.mark.parametrize(
    "pair",
    [
        Pair(np.ones((2, 3)), np.ones((2, 4))),
        Pair(np.ones((2, 3)), np.full((2, 3), np.nan)),
        Pair(np.ones((0, 3)), np.ones((0, 3))),
    ],
)
def test_histogram_of_what_cannot_be_subtracted(pair):
    assert "nothing to draw" in histogram(pair, Marks(1e-6), "float32")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "–"),
        (0.0, "0"),
        (0.25, "0.25"),
        (1234.0, "1,234"),
        (1.23e-7, "1.2 × 10<sup>−7</sup>"),
        (4e9, "4.0 × 10<sup>9</sup>"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
    ],
)
def test_numbers(value, said):
    assert said in number(value)


@dataclass(frozen=True)
class Row:
    tensor: str
    holds: bool
    largest_defect: float | None


def test_any_part_of_a_document():
    rows = (Row("<a>", True, 1e-9), Row("b", False, None))
    read = Reader(anything({"certificate": rows, "names": ("x", "y"), "nothing": ()}))
    assert [name for name, _ in read.tags if name == "th"] == ["th"] * 3
    assert "largest defect" in read.words
    assert "<a>yes1.0 × 10−9" in read.words
    assert "bno–" in read.words
    assert "x, y" in read.words


def test_the_spec_reads_as_it_was_written(mlp):
    written = yaml(mlp.record.spec)
    made = (language.parse_text(written), language.from_dict(WIDER))
    assert language.canonical(made[0]) == language.canonical(made[1])


EARLIER = "<!doctype html>\nan earlier report"


def test_report_takes_the_place_of_an_earlier_one(tmp_path):
    path = tmp_path / "report.html"
    path.write_text(EARLIER)
    with ReportFile(path) as report:
        assert path.read_text() == EARLIER
        report.publish("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_report_takes_the_place_of_nothing_else(tmp_path):
    path = tmp_path / "inputs.npy"
    np.save(path, np.ones(3))
    before = path.read_bytes()
    with pytest.raises(FileError, match="no page that a report could replace"), ReportFile(path):
        pass
    assert path.read_bytes() == before


def test_failing_run_leaves_the_earlier_report(tmp_path):
    path = tmp_path / "report.html"
    path.write_text(EARLIER)
    with pytest.raises(RuntimeError), ReportFile(path):
        raise RuntimeError
    assert path.read_text() == EARLIER
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("place", ["missing/report.html", "."])
def test_unwritable_place_is_told_before_anything_runs(tmp_path, place):
    with pytest.raises(FileError), ReportFile(tmp_path / place):
        pytest.fail("entered")


def test_report_does_not_replace_a_checkpoint(tmp_path):
    teacher = tmp_path / "teacher.safetensors"
    teacher.write_text("weights")
    link = tmp_path / "link.html"
    link.symlink_to(teacher)
    for path in (teacher, link):
        with pytest.raises(FileError, match="is one of the files that the report is about"):
            ReportFile(path, (None, teacher))
    assert teacher.read_text() == "weights"
