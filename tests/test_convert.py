"""ckgrow convert: between all formats, bit for bit, with each format's own library as the judge."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from checkpoint_libraries import EVERYWHERE, LIBRARIES, Plain
from commands import ckgrow, document, listing, process, saved, tensors, written
from safetensors import safe_open

from ckgrow.header import numpy_dtype
from ckgrow.registry import formats

SPECS = Path(__file__).parents[1] / "specs"
WIDEN = 'seed: 3\nsteps:\n  - widen: "0"\n    factor: 1.5\n'
SHAPES = ((3, 5), (), (0, 4), (4, 0), (2, 1, 3, 1, 2), (1,), (7,))
PAIRS = [(source, target) for source in LIBRARIES for target in LIBRARIES]


def test_every_format_that_is_written_is_here():
    assert {name for name, each in formats().items() if each.writable} == set(LIBRARIES)


def random_tensors(dtypes) -> dict[str, Plain]:
    """Random bits of every dtype, NaN payloads and negative zeros among them."""
    random = np.random.default_rng(0)
    found: dict[str, Plain] = {}
    for dtype in dtypes:
        for number, shape in enumerate(SHAPES):
            size = int(np.prod(shape)) * numpy_dtype(dtype).itemsize
            top = 2 if dtype == "bool" else 256
            data = random.integers(0, top, size, dtype="u1").tobytes()
            found[f"{dtype}.{number}.weight"] = Plain(dtype, shape, data)
    return found


def common(source, target) -> tuple[str, ...]:
    mine, others = LIBRARIES[source].more, LIBRARIES[target].more
    return (*EVERYWHERE, *(dtype for dtype in mine if dtype in others))


def hash_of(tensors: dict[str, Plain]) -> str:
    """As the documentation says it: over names, dtypes, shapes and bytes, in the order of names."""
    total = blake3()
    for name, (dtype, shape, data) in sorted(tensors.items()):
        total.update(repr((name, dtype, shape, blake3(data).hexdigest())).encode())
    return total.hexdigest()


def file_of(folder, form, name="a") -> Path:
    folder.mkdir(exist_ok=True)
    return folder / f"{name}{LIBRARIES[form].suffix}"


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_bit_for_bit(tmp_path, source, target):
    expected = random_tensors(common(source, target))
    given, made = file_of(tmp_path / "in", source), file_of(tmp_path / "out", target)
    LIBRARIES[source].write(given, expected, {})
    before = listing(given.parent)
    done = document("convert", given, made)
    assert LIBRARIES[target].read(made) == expected
    assert listing(given.parent) == before
    assert done == {
        "schema": "ckgrow.convert/1",
        "source": str(given),
        "output": str(made),
        "format": target,
        "tensors": len(expected),
        "bytes": sum(len(each.data) for each in expected.values()),
        "hash": hash_of(expected),
        "dropped": [],
    }


@pytest.mark.parametrize("target", LIBRARIES)
def test_special_numbers_keep_their_bits(tmp_path, target):
    """Payloads of NaNs, quiet and signalling, both zeros, the smallest and the largest."""
    bits = {
        "float64": ([0x7FF8_0000_0000_0001, 0xFFF0_0000_0000_0123, 1 << 63, 1, 0x7FF0 << 48], "u8"),
        "float32": ([0x7FC0_0001, 0xFF80_0123, 1 << 31, 1, 0x7F80_0000], "u4"),
        "float16": ([0x7E01, 0xFC12, 1 << 15, 1, 0x7C00], "u2"),
        "bfloat16": ([0x7FC1, 0xFF81, 1 << 15, 1, 0x7F80], "u2"),
        "float8_e4m3fn": ([0x7F, 0xFF, 0x80, 1, 0x7E], "u1"),
        "float8_e5m2": ([0x7F, 0xFD, 0x80, 1, 0x7C], "u1"),
    }
    expected = {
        f"{dtype}.weight": Plain(dtype, (5,), np.array(values, kind).tobytes())
        for dtype, (values, kind) in bits.items()
    }
    given, made = tmp_path / "a.safetensors", file_of(tmp_path / "out", target)
    LIBRARIES["safetensors"].write(given, expected, {})
    document("convert", given, made)
    assert LIBRARIES[target].read(made) == expected


@pytest.fixture(scope="module")
def grown(tmp_path_factory) -> Path:
    """A folder with a teacher, a spec and its student."""
    folder = tmp_path_factory.mktemp("grown")
    saved(folder / "teacher.safetensors", tensors())
    written(folder / "spec.yaml", WIDEN)
    document(
        *("apply", folder / "teacher.safetensors", folder / "spec.yaml"),
        *("-o", folder / "student.safetensors"),
    )
    return folder


def require_same(made: Path, expected: Path, via: str) -> None:
    """Byte for byte; but shards say that they are for PyTorch, and what comes of them does too."""
    if via != "sharded":
        assert made.read_bytes() == expected.read_bytes()
    assert LIBRARIES["safetensors"].read(made) == LIBRARIES["safetensors"].read(expected)
    found, wanted = metadata_of(made), metadata_of(expected)
    assert found.pop("format", "pt") == "pt"
    assert found == wanted


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "np") as file:
        return file.metadata()


@pytest.mark.parametrize("target", LIBRARIES)
def test_the_record_of_growth_survives(tmp_path, grown, target):
    teacher, student = grown / "teacher.safetensors", grown / "student.safetensors"
    made, back = file_of(tmp_path, target, "student"), tmp_path / "back.safetensors"
    document("convert", student, made)
    expected = document("verify", teacher, student)
    assert document("verify", teacher, made) == {**expected, "student": str(made)}
    spec = grown / "spec.yaml"
    assert document("apply", teacher, spec, "-o", made)["status"] == "up to date"
    document("convert", made, back)
    require_same(back, student, target)


@pytest.mark.parametrize("target", LIBRARIES)
def test_the_same_student_whatever_the_format_of_the_teacher(tmp_path, grown, target):
    teacher, spec = file_of(tmp_path, target, "teacher"), grown / "spec.yaml"
    document("convert", grown / "teacher.safetensors", teacher)
    made = tmp_path / "student.safetensors"
    document("apply", teacher, spec, "-o", made)
    require_same(made, grown / "student.safetensors", target)


@pytest.mark.parametrize("form", LIBRARIES)
def test_from_format_to_the_same_format(tmp_path, grown, form):
    """Teacher and student in one format, and the verdict on them."""
    teacher, student = file_of(tmp_path, form, "teacher"), file_of(tmp_path, form, "student")
    document("convert", grown / "teacher.safetensors", teacher)
    done = document("apply", teacher, grown / "spec.yaml", "-o", student)
    assert done["status"] == "written"
    assert document("verify", teacher, student)["preserved"]
    again = document("apply", teacher, grown / "spec.yaml", "-o", student)
    assert (again["status"], again["hashes"]) == ("up to date", done["hashes"])
    digest = document("convert", student, tmp_path / "x.safetensors")["hash"]
    assert digest == done["hashes"]["student"]
    assert digest == hash_of(LIBRARIES[form].read(student))


@pytest.mark.parametrize("target", LIBRARIES)
def test_metadata_survive(tmp_path, target):
    entries = {"note": 'with "quotes",\nlines and é', "format": "pt"}
    given, made = tmp_path / "a.safetensors", file_of(tmp_path, target, "b")
    expected = {"w": Plain("float32", (2,), bytes(8))}
    LIBRARIES["safetensors"].write(given, expected, entries)
    document("convert", given, made)
    back = tmp_path / "back.safetensors"
    document("convert", made, back)
    assert entries.items() <= metadata_of(back).items()


@pytest.mark.parametrize("target", LIBRARIES)
def test_nothing_beside_what_there_is_to_say(tmp_path, target):
    """A checkpoint without metadata, of ordinary dtypes, needs no file beside it."""
    saved(tmp_path / "a.safetensors", tensors())
    made = file_of(tmp_path / "out", target)
    document("convert", tmp_path / "a.safetensors", made)
    extra = {"sharded": {"a-00001-of-00001.safetensors"}}
    assert set(listing(made.parent)) == {made.name} | extra.get(target, set())


REFUSED = {
    "safetensors": [("complex128", "w", "complex128"), ("float32", "__metadata__", "__metadata__")],
    "sharded": [("complex128", "w", "complex128"), ("float32", "__metadata__", "__metadata__")],
    "torch": [("complex64", "w", "complex64")],
    "npz": [("float32", "../../w", "../../w"), ("float32", "a\0b", "'a\\x00b'")],
    "onnx": [("float32", "", "without a name")],
}


@pytest.mark.parametrize(
    ("target", "dtype", "name", "shown"),
    [(target, *each) for target, cases in REFUSED.items() for each in cases],
)
def test_what_a_format_cannot_hold_is_refused_by_name(tmp_path, target, dtype, name, shown):
    source = "safetensors" if name in ("", "a\0b") or target == "npz" else "npz"
    data = bytes(2 * numpy_dtype(dtype).itemsize)
    given, made = file_of(tmp_path / "in", source), file_of(tmp_path / "out", target)
    LIBRARIES[source].write(given, {name: Plain(dtype, (2,), data)}, {})
    done = ckgrow("convert", given, made)
    assert done.exit_code == 3
    assert shown in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(made.parent.iterdir()) == []


@pytest.mark.parametrize("target", LIBRARIES)
def test_an_output_that_is_there_already(tmp_path, target):
    given, made = tmp_path / "a.safetensors", file_of(tmp_path / "out", target)
    saved(given, tensors(seed=1))
    document("convert", given, made)
    before = listing(made.parent)
    saved(given, tensors(seed=2))
    done = ckgrow("convert", given, made)
    assert done.exit_code == 4
    assert "--force" in done.stderr
    assert listing(made.parent) == before
    document("convert", given, made, "--force")
    expected = {name: each.tobytes() for name, each in tensors(seed=2).items()}
    assert {name: each.data for name, each in LIBRARIES[target].read(made).items()} == expected
    assert set(listing(made.parent)) == set(before)


@pytest.mark.parametrize("form", LIBRARIES)
def test_a_checkpoint_is_not_converted_onto_itself(tmp_path, form):
    path = file_of(tmp_path / "in", form)
    LIBRARIES[form].write(path, random_tensors(["float32"]), {})
    before = listing(path.parent)
    done = ckgrow("convert", path, path, "--force")
    assert done.exit_code == 4
    assert listing(path.parent) == before


@pytest.mark.parametrize("target", LIBRARIES)
def test_no_room(tmp_path, target):
    """A limit on the size of files stands for a full disk."""
    given, made = tmp_path / "a.safetensors", file_of(tmp_path / "out", target)
    saved(given, {"w": np.ones((1000, 1000), "f4")})

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    done = process("convert", given, made, preexec_fn=limited)
    assert (done.returncode, done.stdout) == (4, "")
    assert "larger than the file system or the limit of the shell allows" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(made.parent.iterdir()) == []


@pytest.mark.parametrize("target", LIBRARIES)
def test_workers_change_no_byte(tmp_path, target):
    given = tmp_path / "a.safetensors"
    LIBRARIES["safetensors"].write(given, random_tensors(EVERYWHERE), {"note": "n"})
    made = [file_of(tmp_path / str(workers), target) for workers in (1, 4)]
    for path, workers in zip(made, (1, 4), strict=True):
        document("convert", given, path, "--workers", workers)
    assert listing(made[0].parent) == listing(made[1].parent)


def test_a_teacher_that_is_damaged_leaves_nothing(tmp_path):
    given, made = tmp_path / "a.npz", file_of(tmp_path / "out", "safetensors")
    np.savez(given, w=np.ones((100, 100)))
    data = bytearray(given.read_bytes())
    data[5000] ^= 1
    given.write_bytes(bytes(data))
    done = ckgrow("convert", given, made)
    assert done.exit_code == 3
    assert "tensor w is not what was saved" in done.stderr
    assert list(made.parent.iterdir()) == []


def test_shipped_teachers_go_around(tmp_path):
    """Through every format, one after the other, and back."""
    given = SPECS / "teachers" / "resnet.safetensors"
    place, digests = given, set()
    for number, form in enumerate((*LIBRARIES, *reversed(LIBRARIES), "safetensors")):
        following = file_of(tmp_path, form, f"step{number}")
        digests.add(document("convert", place, following)["hash"])
        place = following
    assert len(digests) == 1
    assert LIBRARIES["safetensors"].read(place) == LIBRARIES["safetensors"].read(given)


def test_what_people_see(tmp_path, monkeypatch):
    saved(tmp_path / "a.safetensors", tensors())
    monkeypatch.chdir(tmp_path)
    done = process("convert", "a.safetensors", "b.npz")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("wrote b.npz (npz): 4 tensors, hash ")
    for arguments, code, words in [
        (("absent.npz", "c.npz"), 4, "no such file"),
        (("a.safetensors", "c.txt"), 2, ".txt"),
        (("a.safetensors", "absent/c.npz"), 4, "does not exist"),
        (("a.safetensors", "c.npz", "--weights", "ema"), 2, "choosing weights"),
        (("b.npz", "c.pt", "--weights", "ema"), 2, "choosing weights"),
    ]:
        done = ckgrow("convert", *arguments)
        assert (done.exit_code, done.stdout) == (code, ""), arguments
        assert words in done.stderr
    assert sorted(listing(tmp_path)) == ["a.safetensors", "b.npz"]
