"""What a user would write without ckgrow: all tensors in memory, indexed, divided, saved.

    python benchmarks/apply_script.py TEACHER STUDENT rows|columns|both FACTOR

Net2WiderNet with equal shares, for the stacks of ``apply_teachers.py``.
"""

from __future__ import annotations

import sys

import torch
from safetensors.torch import load_file, save_file


def main(teacher: str, student: str, growth: str, factor: float) -> None:
    """Grows the file ``teacher`` into the file ``student``."""
    generator = torch.Generator().manual_seed(0)
    state = load_file(teacher)
    index: torch.Tensor | None = None
    for name, weight in state.items():
        if index is not None:  # the layer before has grown: divide what reads it
            counts = torch.bincount(index, minlength=weight.shape[1])
            weight = weight[:, index] / counts[index].to(weight.dtype)
            index = None
        layer = name.removesuffix(".weight")
        if layer.endswith(grown(growth)):
            width = len(weight)
            extra = round(width * factor) - width
            copies = torch.randint(width, (extra,), generator=generator)
            index = torch.cat([torch.arange(width), copies])
            weight = weight[index]
        state[name] = weight.contiguous()
    save_file(state, student)


def grown(growth: str) -> tuple[str, ...]:
    """The ends of the layers that become wider."""
    return {"rows": ("b",), "columns": ("a",), "both": ("a", "b")}[growth]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
