"""Statistics of new BatchNorms, measured on inputs: exact in eval mode, in training expected."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torchvision
from commands import python
from safetensors.torch import save_file
from student_oracles import (
    MemoryReader,
    arrays_of,
    assert_same_function,
    deviation,
    grown,
    grown_graph,
    images,
    on_meta,
    outputs_of,
    random_arrays,
    random_state,
)
from test_coupling import case, layer, node
from torch import nn
from torch.func import functional_call
from torchvision.models.resnet import BasicBlock

import ckgrow
from ckgrow import applying, spec
from ckgrow.errors import CheckpointError, FileError, SpecError
from ckgrow.execute import execute
from ckgrow.loading import Wish, load
from ckgrow.planning import make_plan
from ckgrow.recipes import DEFECTS, undone
from ckgrow.registry import runtime

SIZE = (3, 9, 9)


def network(*inserted: nn.Module) -> nn.Sequential:
    """Convolutions with BatchNorm; ``inserted`` stand behind the first activation."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        *inserted,
        nn.Conv2d(6, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 81, 5),
    )


OPTIONS = {"architecture": "convnet", "options": {"input": list(SIZE), "activation": "relu"}}


def settled(module: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The state of a network whose running statistics are those of ``x``."""
    module.load_state_dict(random_state(module))
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.reset_running_stats()
            each.momentum = None  # the average of all batches
    with torch.no_grad():
        module.train()(x)
    return {name: each.clone() for name, each in module.state_dict().items()}


@pytest.fixture
def inputs(tmp_path):
    """Skewed samples, so that means and deviations of channels are far from 0 and 1."""
    x = images(400, *SIZE) * torch.tensor([0.2, 3.0, 1.0])[:, None, None] + 2.0
    path = tmp_path / "inputs.npz"
    np.savez(path, x=x.numpy())
    return x, path


def in_training(module: nn.Module, state, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """One forward in train mode, in float64; the buffers it updates are thrown away."""
    tensors = {n: t.double() if t.is_floating_point() else t.clone() for n, t in state.items()}
    with torch.no_grad():
        return (functional_call(copy.deepcopy(module).train(), tensors, (x.double(),)),)


def test_an_identity_layer_keeps_the_function_in_training_too(inputs):
    x, path = inputs
    state = settled(network(), x)
    deeper = network(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
    step = {"deepen": "0", "layers": 1}
    plain = grown(state, step, **OPTIONS)
    student = grown(state, {**step, "calibrate": str(path)}, **OPTIONS)
    assert student.plan.preserves == plain.plan.preserves == "eval"
    before = outputs_of(network().eval(), state, x[:9])
    off = deviation(before, outputs_of(deeper.eval(), student.tensors, x[:9]))
    assert off <= 1e-10
    assert off <= 64 * student.plan.defect
    fresh = images(400, *SIZE, seed=7) * torch.tensor([0.2, 3.0, 1.0])[:, None, None] + 2.0
    trained = in_training(network(), state, fresh)
    without = deviation(trained, in_training(deeper, plain.tensors, fresh))
    with_data = deviation(trained, in_training(deeper, student.tensors, fresh))
    assert without > 0.1
    assert with_data < 0.01


def test_what_is_stored_are_the_statistics_of_the_activations(inputs):
    x, path = inputs
    state = settled(network(), x)
    student = grown(state, {"deepen": "0", "layers": 1, "calibrate": str(path)}, **OPTIONS).tensors
    with torch.no_grad():
        module = network().double().eval()
        module.load_state_dict(state)
        reached = module[:3](x.double()).transpose(0, 1).flatten(1)
    assert torch.allclose(student["4.running_mean"].double(), reached.mean(1), rtol=1e-5)
    assert torch.allclose(student["4.running_var"].double(), reached.var(1), rtol=3e-3)
    assert torch.equal(student["4.bias"], student["4.running_mean"])
    gamma = student["4.weight"].double() / (student["4.running_var"].double() + 1e-5).sqrt()
    assert float((gamma - 1).abs().max()) <= DEFECTS["float32"]


def test_several_layers_are_measured_in_one_step(inputs):
    x, path = inputs
    state = settled(network(), x)
    step = {"deepen": ["0", "3"], "layers": 2, "calibrate": str(path)}
    student = grown(state, step, **OPTIONS)
    more = [nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()] * 2
    less = [nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()] * 2
    base = network()
    deeper = nn.Sequential(*base[:3], *less, *base[3:6], *more, *base[6:])
    deeper = nn.Sequential(*(copy.deepcopy(each) for each in deeper))
    before = outputs_of(network().eval(), state, x[:9])
    assert deviation(before, outputs_of(deeper.eval(), student.tensors, x[:9])) <= 1e-9
    trained = in_training(network(), state, x)
    assert deviation(trained, in_training(deeper, student.tensors, x)) < 0.01


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3])
@pytest.mark.parametrize("scale", [0.0, 1e-8, 1e-3, 1.0, 1e6])
def test_stored_statistics_undo_themselves(epsilon, scale):
    generator = np.random.default_rng(3)
    variance = generator.uniform(0.1, 3.0, 300) * scale
    mean = generator.standard_normal(300) * 10
    made = undone(mean, variance, "float32", epsilon)
    root = np.sqrt(made["var"].astype(np.float64) + epsilon)
    assert np.abs(made["gamma"].astype(np.float64) / root - 1).max() <= DEFECTS["float32"]
    assert np.abs(made["var"] - variance).max() <= 2e-3 * (variance.max() + epsilon)
    assert (made["beta"] == made["mean"]).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_in_half_precision_calibration_is_approximate(inputs, dtype):
    x, path = inputs
    state = settled(network(), x)
    halves = {
        n: t.to(getattr(torch, dtype)) if t.is_floating_point() else t for n, t in state.items()
    }
    plan = plan_of(halves, {"deepen": "0", "layers": 1, "calibrate": str(path)})
    assert plan.preserves == "approximate"
    quiet = arrays_of({k: r.quiet() for k, r in plan.draft.recipes.items()}, halves)
    assert (quiet["4.running_mean"] == 0).all()


def plan_of(state, *steps):
    read = spec.from_dict({"steps": list(steps), "teacher": OPTIONS})
    with load(state, Wish(read.teacher.architecture, read.teacher.options)) as loaded:
        return make_plan(loaded, read)


# New channels beside old ones


def wide(state) -> nn.Module:
    module = network()
    for key, attribute in (("0", "weight"), ("3", "weight")):
        rows = state[f"{key}.{attribute}"].shape
        old = module[int(key)]
        module[int(key)] = nn.Conv2d(
            rows[1], rows[0], 3, padding=old.padding, bias=old.bias is not None
        )
        module[int(key) + 1] = nn.BatchNorm2d(rows[0])
    module[7] = nn.Linear(state["7.weight"].shape[1], 5)
    return module


@pytest.mark.parametrize(
    "options",
    [
        {"method": "r2wider", "to": 12},
        {"method": "netmorph", "to": 11},
        {"method": "envelope", "to": 10},
    ],
)
def test_fresh_channels_get_the_statistics_of_what_reaches_them(inputs, options):
    x, path = inputs
    state = settled(network(), x)
    step = {"widen": ["0", "3"], **options, "calibrate": str(path)}
    student = grown(state, step, **OPTIONS)
    module = wide(student.tensors)
    before = outputs_of(network().eval(), state, x[:9])
    assert student.plan.preserves == "exact"
    assert deviation(before, outputs_of(module.eval(), student.tensors, x[:9])) <= 1e-12
    module.load_state_dict(student.tensors)
    module = module.double().eval()
    with torch.no_grad():
        for place in (1, 4):  # the second one reads what the first one makes of fresh channels
            reached = module[:place](x.double()).transpose(0, 1).flatten(1)
            found = module[place]
            assert torch.allclose(found.running_mean, reached.mean(1), rtol=1e-3, atol=1e-3)
            assert torch.allclose(found.running_var, reached.var(1), rtol=1e-2)
    plain = grown(state, dropped(step), **OPTIONS)
    for key, tensor in plain.tensors.items():
        if not key.endswith(("running_mean", "running_var")):
            assert torch.equal(tensor, student.tensors[key])


def dropped(step):
    return {key: value for key, value in step.items() if key != "calibrate"}


@pytest.mark.parametrize(
    ("method", "width", "to"),
    [
        *(("r2wider", 1, 5), ("netmorph", 1, 4), ("envelope", 1, 4)),  # r2wider adds pairs
        *(("r2wider", 6, 24), ("netmorph", 6, 24), ("envelope", 6, 24)),
    ],
)
def test_channels_may_more_than_double(tmp_path, method, width, to):
    def module(channels):
        return nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(channels * 81, 5),
        )

    x = images(40, *SIZE)
    path = tmp_path / "x.npy"
    np.save(path, x.numpy())
    state = settled(module(width), x)
    step = {"widen": "0", "to": to, "method": method, "calibrate": str(path)}
    student = grown(state, step, **OPTIONS).tensors
    before = outputs_of(module(width).eval(), state, x)
    assert deviation(before, outputs_of(module(to).eval(), student, x)) <= 1e-12
    with torch.no_grad():
        wide = module(to).double().eval()
        wide.load_state_dict(student)
        reached = wide[0](x.double()).transpose(0, 1).flatten(1)
    for key, expected in (("1.running_mean", reached.mean(1)), ("1.running_var", reached.var(1))):
        assert torch.isin(state[key], student[key]).all()  # old ones stay as they are
        assert torch.allclose(student[key].double(), expected, atol=1e-5, rtol=1e-5)


def test_both_of_a_pair_get_the_same(inputs):
    x, path = inputs
    state = settled(network(), x)
    step = {"widen": "0", "to": 12, "method": "r2wider", "calibrate": str(path)}
    student = grown(state, step, **OPTIONS).tensors
    for key in ("1.running_mean", "1.running_var"):
        assert torch.equal(student[key][:6], state[key])
        assert torch.equal(student[key][6:9], student[key][9:])
        assert (student[key][6:] != (0.0 if "mean" in key else 1.0)).all()


def residual_case():
    made = case(
        {"a": (4, 3, 3, 3), "b": (4, 4, 3, 3), "c": (2, 4, 1, 1)}
        | {f"n.{part}": (4,) for part in ("g", "b", "m", "running_var")},
        [
            layer("Conv", "a", "x", pads=(1, 1, 1, 1)),
            node("BatchNormalization", "n", "a", "n.g", "n.b", "n.m", "n.running_var"),
            node("Relu", "r", "n"),
            layer("Conv", "b", "r", pads=(1, 1, 1, 1)),
            node("Relu", "s", "b"),
            layer("Conv", "c", "s"),
        ],
        {},
    )
    return made.graph, random_arrays(made.header)


@pytest.mark.parametrize("method", ["r2deeper", "zero-init"])
def test_inserted_blocks_are_measured(tmp_path, method):
    graph, tensors = residual_case()
    path = tmp_path / "x.npy"
    np.save(path, images(64, 3, 4, 5).numpy() * 3)
    step = {"deepen": "a", "layers": 2, "method": method, "calibrate": str(path)}
    plan, student = grown_graph(graph, tensors, step)
    assert_same_function(graph, tensors, plan, student)
    fresh = [
        node.inputs[4]
        for node in plan.graph.nodes
        if node.op == "BatchNormalization" and node.inputs[4] not in tensors
    ]
    assert fresh
    for key in fresh:
        assert (student[key] != 1).all()
        assert (student[key] > 0).all()


def test_what_stands_behind_new_channels_is_measured_behind_measured_ones(tmp_path):
    graph, tensors = residual_case()
    path = tmp_path / "x.npy"
    x = images(64, 3, 4, 5).numpy() * 3
    np.save(path, x)
    step = {"deepen": "a", "layers": 3, "method": "r2deeper", "calibrate": str(path)}
    plan, student = grown_graph(graph, tensors, step)
    fresh = [
        each
        for each in plan.graph.nodes
        if each.op == "BatchNormalization" and each.inputs[4] not in tensors
    ]
    assert len(fresh) == 2
    values = [each.inputs[0] for each in fresh]
    session = runtime("torch_float64").Session(
        plan.graph, MemoryReader(student).header, student.__getitem__, values
    )
    reached = session.run({"x": x})
    for each in fresh:
        channels = np.moveaxis(reached[each.inputs[0]], 1, 0).reshape(4, -1)
        assert np.allclose(student[each.inputs[3]], channels.mean(1), atol=1e-5)
        assert np.allclose(student[each.inputs[4]], channels.var(1, ddof=1), rtol=1e-4)


@pytest.mark.parametrize("method", ["r2deeper", "zero-init"])
def test_in_a_native_block_what_is_zero_stays_as_it_is(tmp_path, method):
    module = on_meta(torchvision.models.resnet18, num_classes=10)
    state = random_state(module, shrink=8)
    path, x = tmp_path / "x.npy", images(6, 3, 64, 64)
    np.save(path, x.numpy())
    step = {"deepen": "layer1", "blocks": 1, "method": method, "calibrate": str(path)}
    student = grown(state, step, options={"input": [3, 64, 64]})
    deeper = on_meta(torchvision.models.ResNet, BasicBlock, [3, 2, 2, 2], num_classes=10)
    before = outputs_of(module, state, x)
    assert deviation(before, outputs_of(deeper, student.tensors, x)) <= 1e-12
    new = {key: t for key, t in student.tensors.items() if key.startswith("layer1.2.bn")}
    assert (new["layer1.2.bn1.running_mean"] != 0).all()
    assert (new["layer1.2.bn1.running_var"] != 1).all()
    if method == "r2deeper":  # a convolution whose output is zero stands there
        assert (new["layer1.2.bn2.running_mean"] == 0).all()
        assert (new["layer1.2.bn2.running_var"] == 1).all()


# Files


def test_paths_start_at_the_spec(inputs, tmp_path):
    x, path = inputs
    folder = tmp_path / "specs"
    folder.mkdir()
    path.rename(folder / "inputs.npz")
    teacher = tmp_path / "teacher.pt"
    torch.save(settled(network(), x), teacher)
    written = folder / "spec.yaml"
    written.write_text(
        "teacher: {architecture: convnet, options: {input: [3, 9, 9], activation: relu}}\n"
        "steps:\n- {deepen: '0', layers: 1, calibrate: inputs.npz}\n"
    )
    output = tmp_path / "student.safetensors"
    first = ckgrow.apply(teacher, written, output)
    assert first.status == "written"
    assert ckgrow.apply(teacher, written, output).status == "up to date"
    np.savez(folder / "inputs.npz", x=(x * 2).numpy())
    again = ckgrow.apply(teacher, written, output, force=True)
    assert again.status == "written"
    assert again.hashes["student"] != first.hashes["student"]


def refused(state, kind, calibrate, **step):
    with pytest.raises(kind) as failure:
        grown(state, {"deepen": "0", "layers": 1, **step, "calibrate": str(calibrate)}, **OPTIONS)
    return str(failure.value)


def planned_with(path):
    return plan_of(random_state(network()), {"deepen": "0", "layers": 1, "calibrate": str(path)})


def test_the_plan_needs_the_file(tmp_path):
    with pytest.raises(FileError) as failure:
        planned_with(tmp_path / "nowhere.npz")
    said = str(failure.value)
    assert said.startswith("step 1: calibrate: ")
    assert "is no file; a path that is not absolute starts at the spec's own folder" in said


def test_the_plan_reads_no_data(tmp_path, monkeypatch):
    """Values that cannot even be unpacked are found when they are measured on, and not before."""
    path = tmp_path / "inputs.npz"
    np.savez_compressed(path, x=images(40, *SIZE).numpy())
    damaged = bytearray(path.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 64] = bytes(64)
    path.write_bytes(damaged)
    with monkeypatch.context() as patched:
        patched.setattr(np.lib.format, "read_array", None)
        plan = planned_with(path)
    with pytest.raises(CheckpointError, match=r"is no readable \.npz file"):
        arrays_of(plan.draft.recipes, random_state(network()))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.ones((40, 4, 9, 9), np.float32)}, r"has shape \[40, 4, 9, 9\]; .* 3, 9, 9\]$"),
        ({"x": np.ones(SIZE, np.float32)}, r"counts the samples: use array\[None\]$"),
        ({"x": np.ones((0, *SIZE), np.float32)}, "is empty"),
        ({"x": np.ones((40, *SIZE), np.int64)}, "is int64; expected a floating point dtype"),
        ({"x": np.array([{}], object)}, "holds Python objects, which are never loaded"),
        ({"a": np.ones((4, *SIZE)), "b": np.ones((4, *SIZE))}, "'?a'? is no graph input"),
        ({}, "holds no array"),
        (b"", r"is no readable \.npz file"),
    ],
)
def test_unfit_arrays_are_found_by_the_plan(tmp_path, arrays, said):
    path = tmp_path / "inputs.npz"
    if isinstance(arrays, bytes):
        path.write_bytes(arrays)
    else:
        np.savez(path, **arrays)
    with pytest.raises(CheckpointError, match=said) as failure:
        planned_with(path)
    assert str(failure.value).startswith("step 1: calibrate: ")


def test_an_array_that_is_cut_short_is_found_by_the_plan(tmp_path):
    path = tmp_path / "inputs.npy"
    np.save(path, np.ones((40, *SIZE)))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="it is cut short: 77760 bytes of data"):
        planned_with(path)


def test_the_plan_imports_no_runtime(inputs, tmp_path):
    x, _ = inputs
    teacher = tmp_path / "teacher.safetensors"
    save_file(settled(network(), x), teacher)
    written = tmp_path / "spec.yaml"
    written.write_text(
        "teacher: {architecture: convnet, options: {input: [3, 9, 9], activation: relu}}\n"
        "steps:\n- {widen: '0', to: 8, method: r2wider, calibrate: inputs.npz}\n"
    )
    code = "import sys, ckgrow; ckgrow.plan(*sys.argv[1:]); print(*sys.modules)"
    done = python(code, teacher, written)
    assert done.returncode == 0, done.stderr
    assert not {"torch", "onnx", "onnxruntime"} & set(done.stdout.split())


def test_values_are_looked_at_when_they_are_measured_on(tmp_path):
    path = tmp_path / "inputs.npz"
    np.savez(path, x=np.full((40, *SIZE), np.nan, np.float32))
    plan = planned_with(path)
    with pytest.raises(CheckpointError, match="holds NaN"):
        arrays_of(plan.draft.recipes, random_state(network()))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "; for inputs of another size state teacher.options.input"),
        ({"input": [3, 48, 48]}, ", as teacher.options.input states"),
    ],
)
def test_the_size_of_inputs_can_be_stated(tmp_path, options, said):
    state = random_state(on_meta(torchvision.models.resnet18, num_classes=10), shrink=8)
    path = tmp_path / "inputs.npz"
    np.savez(path, x=images(4, 3, 64, 64).numpy())
    step = {"widen": "layer1.0.conv1", "by": 4, "method": "r2wider", "calibrate": str(path)}
    with pytest.raises(CheckpointError) as failure:
        grown(state, step, options=options)
    assert str(failure.value).endswith(said)
    assert grown(state, step, options={"input": [3, 64, 64]})


def perceptron():
    return case(
        {"a": (4, 3), "b": (2, 4)} | {f"n.{part}": (4,) for part in ("g", "b", "m", "running_var")},
        [
            node("Gemm", "a", "x", "a.w", transB=1),
            node("BatchNormalization", "n", "a", "n.g", "n.b", "n.m", "n.running_var"),
            node("Relu", "r", "n"),
            node("Gemm", "b", "r", "b.w", transB=1),
        ],
        {},
        x=(3,),
    )


@pytest.mark.parametrize("method", ["net2deeper", "random-pad"])
def test_the_plan_warns_of_few_samples(tmp_path, method):
    made = perceptron()
    path = tmp_path / "x.npy"
    step = {"deepen": "a", "layers": 1, "method": method, "calibrate": str(path)}
    for count, warned in ((31, True), (32, False)):
        np.save(path, images(count, 3).numpy())
        plan, _ = grown_graph(made.graph, random_arrays(made.header), step)
        said = [each for each in plan.steps[0].warnings if "values per channel" in each]
        assert len(said) == warned
        for each in said:
            assert "holds only 31 values per channel for a_grown1; statistics of a Batch" in each
    np.save(path, images(1, 3).numpy())
    with pytest.raises(CheckpointError, match=r"^step 1: .* a single value per channel for a_gro"):
        grown_graph(made.graph, random_arrays(made.header), step)


def test_positions_count_as_values(tmp_path):
    """Of 81 positions a single sample has enough."""
    path = tmp_path / "x.npy"
    for count in (4, 1):
        np.save(path, images(count, *SIZE).numpy())
        assert not any(
            "values per channel" in each for each in planned_with(path).steps[0].warnings
        )


def test_a_file_that_changes_after_it_was_hashed_is_refused(inputs, tmp_path, monkeypatch):
    x, path = inputs
    teacher, output = tmp_path / "teacher.pt", tmp_path / "student.safetensors"
    torch.save(settled(network(), x), teacher)
    steps = [{"deepen": "0", "layers": 1, "calibrate": str(path)}]

    def overtaken(recipes, *rest):
        np.savez(path, x=(x * 2).numpy())
        return execute(recipes, *rest)

    monkeypatch.setattr(applying, "execute", overtaken)
    with pytest.raises(FileError, match=r"inputs\.npz changed while it was read"):
        ckgrow.apply(teacher, {"teacher": OPTIONS, "steps": steps}, output)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["inputs.npz", "teacher.pt"]


def test_nothing_to_measure(inputs):
    _, path = inputs
    plain = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 81, 5))
    said = refused(random_state(plain), SpecError, path)
    assert "makes no new BatchNorm channels; leave it out" in said
    step = {"widen": "0", "to": 12, "calibrate": str(path)}
    with pytest.raises(SpecError, match="net2wider does not read 'calibrate'"):
        grown(random_state(network()), step, **OPTIONS)
