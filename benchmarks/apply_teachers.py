"""Teachers for benchmarks/apply.py: stacks of Linear layers, of which one in three has the bytes.

A block is a layer ``a`` (narrow to wide), ``b`` (wide to wide, nearly all of the bytes) and ``c``
(wide to narrow). Widening ``*b`` grows the rows of all large weights, widening ``*a`` their
columns, and widening both grows both.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

NARROW = 4
CHUNK = 1 << 22
"""Numbers that are drawn at a time."""
GROWTHS = {"rows": ["*b"], "columns": ["*a"], "both": ["*a", "*b"]}


@dataclass(frozen=True)
class Stack:
    """``blocks`` blocks of ``width`` channels in ``dtype`` (float32 or bfloat16)."""

    name: str
    blocks: int
    width: int
    dtype: str

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return 4 if self.dtype == "float32" else 2

    def shapes(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Weights in order, "out in"."""
        for block in range(self.blocks):
            yield f"{block}a.weight", (self.width, NARROW)
            yield f"{block}b.weight", (self.width, self.width)
            yield f"{block}c.weight", (NARROW, self.width)

    @property
    def nbytes(self) -> int:
        """Of all weights."""
        return sum(out * read for _, (out, read) in self.shapes()) * self.itemsize

    def header(self) -> bytes:
        """How a safetensors file of it starts."""
        entries: dict[str, object] = {}
        end = 0
        for name, shape in self.shapes():
            start, end = end, end + shape[0] * shape[1] * self.itemsize
            dtype = "F32" if self.dtype == "float32" else "BF16"
            entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text

    def write(self, path: Path) -> None:
        """Weights of deviation 1 over the root of what a row reads, a few megabytes at a time."""
        generator = np.random.default_rng(0)
        with path.open("wb") as file:
            file.write(self.header())
            for _, (out, read) in self.shapes():
                left = out * read
                while left:
                    drawn = generator.standard_normal(min(left, CHUNK), dtype=np.float32)
                    drawn *= read**-0.5
                    kept = drawn if self.itemsize == 4 else drawn.view(np.uint16)[1::2]
                    file.write(np.ascontiguousarray(kept).data)
                    left -= len(drawn)

    def write_sparse(self, path: Path) -> None:
        """The same with holes for the data, which occupy no space."""
        header = self.header()
        with path.open("wb") as file:
            file.write(header)
            file.truncate(len(header) + self.nbytes)


def spec(stack: Stack, growth: str, factor: float) -> str:
    """The growth spec, in YAML; keys and shapes alone leave the order of the layers open."""
    order = [name.removesuffix(".weight") for name, _ in stack.shapes()]
    return (
        f"teacher: {{options: {{order: {json.dumps(order)}}}}}\n"
        f"steps: [{{widen: {json.dumps(GROWTHS[growth])}, factor: {factor}}}]\n"
    )
