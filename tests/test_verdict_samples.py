"""Inputs of the verdict: seeded ones, and the user's own files with all that can be wrong."""

import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from ckgrow.building import Builder
from ckgrow.errors import CheckpointError, FileError, SpecError
from ckgrow.graph import BATCH, Graph, Node
from ckgrow.header import Header
from ckgrow.registry import formats
from ckgrow.verdict import arrays
from ckgrow.verdict.expectation import expected_from_file
from ckgrow.verdict.running import Side
from ckgrow.verdict.samples import from_file, seeded_samples

X = np.linspace(-1, 1, 4 * 3 * 5, dtype=np.float32).reshape(4, 3, 5)


def graph(*names: str) -> Graph:
    inputs = dict.fromkeys(names, (BATCH, 3, 5))
    nodes = tuple(Node("Relu", f"{name}/relu", (name,), (f"{name}/relu",)) for name in names)
    return Graph(inputs, tuple(f"{name}/relu" for name in names), nodes).check()


def test_seeded_samples_are_normal_then_zeros_then_ones():
    samples = seeded_samples(graph("x", "y"), 400, 7)
    x, y = samples.arrays["x"], samples.arrays["y"]
    assert x.shape == (402, 3, 5)
    assert x.dtype == np.float32
    assert samples.source == "400 seeded normal samples, zeros, ones"
    assert (x[-2] == 0).all()
    assert (x[-1] == 1).all()
    assert abs(x[:-2].mean()) < 0.05
    assert abs(x[:-2].std() - 1) < 0.05
    assert not np.array_equal(x, y)
    again = seeded_samples(graph("x", "y"), 400, 7)
    np.testing.assert_array_equal(again.arrays["y"], y)
    assert not np.array_equal(seeded_samples(graph("x"), 400, 8).arrays["x"], x)
    np.testing.assert_array_equal(seeded_samples(graph("x"), 9, 7).arrays["x"][:9], x[:9])


def test_seeded_samples_need_a_count_and_a_batch():
    with pytest.raises(SpecError, match="at least one normal sample, not 0"):
        seeded_samples(graph("x"), 0, 0)
    builder = Builder(Header({}), {"x": (3, 5)})
    fixed = builder.graph(builder.node("Relu", "y", ["x"]))
    with pytest.raises(CheckpointError, match=r"graph input x has shape \[3, 5\]"):
        seeded_samples(fixed, 1, 0)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_a_single_array_may_bear_any_name(tmp_path, dtype):
    array = X.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    paths = [tmp_path / "x.npz", tmp_path / "x.npy"]
    np.savez_compressed(paths[0], whatever=array)
    np.save(paths[1], array)
    if dtype == "bfloat16":
        paths = []  # numpy stores it as raw bytes
    if "safetensors" in formats():
        paths.append(tmp_path / "x.safetensors")
        save_file({"whatever": array}, paths[-1])
    for path in paths:
        samples = from_file(path, graph("x"))
        np.testing.assert_array_equal(samples.arrays["x"], array.astype(np.float32))
        assert samples.source == f"4 samples from {path.name}"


def test_several_arrays_are_matched_by_name(tmp_path):
    np.savez(tmp_path / "x.npz", y=X + 1, x=X)
    samples = from_file(tmp_path / "x.npz", graph("x", "y"))
    np.testing.assert_array_equal(samples.arrays["y"], X + 1)
    assert samples.count == 4


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"z\x1b": X, "x": X}, r"the array 'z\\x1b' is no graph input; expected x \[N, 3, 5\], y"),
        ({"x": X}, "no array for the graph input y"),
        ({"x": X, "y": X[:, :, :4]}, r"graph input y has shape \[4, 3, 4\]; expected \[N, 3, 5\]"),
        ({"x": X, "y": X[0]}, r"has shape \[3, 5\]; .*the first dimension counts the samples"),
        ({"x": X, "y": X[:3]}, "hold different numbers of samples"),
        ({"x": X, "y": X.astype(np.int64)}, "is int64; expected a floating point dtype"),
        ({"x": X, "y": np.array(["a"])}, "is str.*; expected a floating point dtype"),
        ({"x": X[:0], "y": X[:0]}, r"graph input x is empty: shape \[0, 3, 5\]"),
        ({"x": X, "y": np.full_like(X, np.nan)}, "holds NaN or infinity"),
        ({"x": X, "y": X.astype(np.float64) * 1e300}, "y has values too large for float32"),
        (
            {"x": X, "y": np.array([{}], object)},
            "no readable .npz file.*holds Python objects, which are never loaded",
        ),
        ({}, "holds no array; expected x"),
    ],
)
def test_wrong_arrays_are_refused_with_what_was_expected(tmp_path, found, message):
    path = tmp_path / "x.npz"
    np.savez(path, **found)
    with pytest.raises(CheckpointError, match=message) as caught:
        from_file(path, graph("x", "y"))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def npy_header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"text",
        b"PK\x03\x04 no archive",
        npy_header("(4, 3, 5)") + bytes(10),
        npy_header("(4611686018427387904,)"),
        npy_header("(-1, 3, 5)"),
        npy_header("(__import__('os'),)"),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_damaged_files_are_refused(tmp_path, content, suffix):
    path = tmp_path / f"x{suffix}"
    if suffix == ".npz" and content.startswith(b"\x93"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", content)
    else:
        path.write_bytes(content)
    # numpy before 2.3 reads a size of -1 as "all there is", which is nothing
    with pytest.raises(CheckpointError, match=f"is no readable {suffix} file|x is empty"):
        from_file(path, graph("x"))


def test_an_archive_that_expands_too_far_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "LARGEST", 1000)
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((100, 3, 5), np.float32))
    with pytest.raises(CheckpointError, match="the limit is 1000"):
        from_file(tmp_path / "x.npz", graph("x"))


def test_missing_files_folders_and_foreign_suffixes(tmp_path):
    with pytest.raises(FileError, match="does not exist"):
        from_file(tmp_path / "x.npy", graph("x"))
    with pytest.raises(FileError, match="is not a file"):
        from_file(tmp_path, graph("x"))
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(CheckpointError, match=r"arrays are read from .*\.npy, \.npz"):
        from_file(tmp_path / "x.csv", graph("x"))


def test_expected_outputs_are_checked_against_the_graphs_outputs(tmp_path):
    teacher = Side("teacher", graph("x", "y"), Header({}), {}.__getitem__)
    np.savez(tmp_path / "y.npz", **{"y/relu": X})
    assert list(expected_from_file(tmp_path / "y.npz", teacher)) == ["y/relu"]
    np.savez(tmp_path / "y.npz", other=X)
    with pytest.raises(
        CheckpointError, match="the array other is no graph output; expected x/relu"
    ):
        expected_from_file(tmp_path / "y.npz", teacher)
