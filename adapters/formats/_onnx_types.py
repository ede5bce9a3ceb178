"""ONNX's numbers of dtypes and of protocol buffer fields (onnx.proto3)."""

from __future__ import annotations

NUMPY_NAMES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
    17: "float8_e4m3fn",
    18: "float8_e4m3fnuz",
    19: "float8_e5m2",
    20: "float8_e5m2fnuz",
    24: "float8_e8m0fnu",
}
"""Dtypes that ckgrow reads and writes, by ``TensorProto.data_type``."""

NUMBERS = {name: number for number, name in NUMPY_NAMES.items()}

UNREAD = {
    8: "string",
    21: "uint4",
    22: "int4",
    23: "float4e2m1",
    25: "uint2",
    26: "int2",
    27: "float6e2m3",
    28: "float6e3m2",
}
"""Dtypes that ONNX has besides."""

PRODUCER, GRAPH, METADATA = 2, 7, 14  # of a ModelProto
NODE, INITIALIZER, SPARSE = 1, 5, 15  # of a GraphProto
INPUT = 1  # of a NodeProto
KEY, VALUE = 1, 2  # of a StringStringEntryProto

# of a TensorProto
DIMS, DATA_TYPE, SEGMENT, NAME = 1, 2, 3, 8
FLOATS, INT32S, STRINGS, INT64S, RAW, DOUBLES, UINT64S = 4, 5, 6, 7, 9, 10, 11
EXTERNAL, LOCATION = 13, 14
