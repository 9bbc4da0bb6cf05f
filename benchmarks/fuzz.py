"""Fuzzes the five readers of files that others wrote: a value or a `UserError`, in bounded memory, and nothing else.

    python benchmarks/fuzz.py --seconds 600                      # all readers, in turn; adds to results/fuzz.json
    python benchmarks/fuzz.py --seconds 60 --readers rows journal --engines hypothesis

Two engines take turns: Hypothesis builds files that are nearly right (a header that lies, a line that is torn) and
damages some of them; atheris, where it is installed (pip install atheris), changes bytes and keeps what reaches new
code. Whenever a reader returns something, it is compared with what the file says, read in another way. A process may
not use more than a gigabyte beyond its imports: an allocation on a file's word ends there.

An input that fails is kept in --failures; with its cause mended it belongs in tests/hostile/.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import platform
import re
import resource
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from ckpt_convert.checkpoint_file import read_ckpt
from mindspore_floodx.attack_journal import Journal
from mindspore_floodx.attack_metrics import summarise
from mindspore_floodx.data import load_files
from mindspore_floodx.errors import UserError, run_command
from mindspore_floodx.files import write_json
from mindspore_floodx.model_config import MAX_PARAMETERS, labels_of, parameter_count, read_config, with_labels
from mindspore_floodx.pretrained import read_weight_file
from mindspore_floodx.readers import read_rows
from mindspore_floodx.untrusted import can_be_written

ROOT = Path(__file__).resolve().parents[1]
MEMORY = 1 << 30  # bytes beyond the imports
LONGEST = 4096  # bytes of an input of atheris
MOST_SECONDS = 10  # of the processor, for one input


# ---- what is done with a file: a value that is right, or a UserError


def read_as_rows(folder: Path, content: bytes) -> None:
    """The first byte says which of the three formats the rest is read as."""
    suffix = (".tsv", ".csv", ".jsonl")[content[0] % 3 if content else 0]
    path = folder / f"rows{suffix}"
    path.write_bytes(content[1:])
    rows = read_rows(path, ["text", "label"])
    for position, line in enumerate(rows.lines):
        otherwise = _row_read_otherwise(content[1:], suffix, line)
        assert repr(otherwise) == repr([rows.fields[name][position] for name in rows.fields])  # NaN is not itself
    data = load_files(path, path, text_column="text", label_column="label")
    assert all(text.strip() and "\0" not in text for text in data.train.texts)
    assert 0 <= data.train.labels.min() <= data.train.labels.max() < len(data.label_names)


def _row_read_otherwise(content: bytes, suffix: str, line: int) -> list[Any]:
    text = content.decode("utf-8-sig")
    lines = text.split("\n")
    if suffix == ".jsonl":
        row = json.loads(lines[line - 1])
        return [row["text"], row["label"]]
    if suffix == ".csv":
        records = list(csv.reader(io.StringIO(re.sub(r"[\r\n]+\Z", "", text), newline="")))
        starts, at = {}, 1
        reader = csv.reader(io.StringIO(text, newline=""))
        for record in records:
            next(reader)
            starts[at], at = record, reader.line_num + 1
        head, row = records[0], starts[line]
    else:
        head, row = (lines[number - 1].removesuffix("\r").split("\t") for number in (1, line))
    names = [name.strip() for name in head]
    return [row[names.index("text")], row[names.index("label")]]


def read_as_config(folder: Path, content: bytes) -> None:
    path = folder / "config.json"
    path.write_bytes(content)
    config = read_config(path)
    assert parameter_count(config) <= MAX_PARAMETERS and can_be_written(config)
    assert len(labels_of(with_labels(config, 3))) == 3


def read_as_checkpoint(folder: Path, content: bytes) -> None:
    path = folder / "model.ckpt"
    path.write_bytes(content)
    _demand_no_more(read_ckpt(path), content)


def read_as_safetensors(folder: Path, content: bytes) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(content)
    tensors = read_weight_file(path)
    _demand_no_more(tensors, content)
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    assert header.keys() == tensors.keys()
    for name, tensor in tensors.items():
        start, end = header[name]["data_offsets"]
        if header[name]["dtype"] in ("F32", "I32"):
            assert tensor.tobytes() == content[8 + length + start : 8 + length + end]
        assert list(tensor.shape) == header[name]["shape"]


def _demand_no_more(tensors: dict[str, np.ndarray], content: bytes) -> None:
    """What is read takes at most twice the file's bytes: bfloat16 and float16 become float32."""
    assert sum(tensor.nbytes for tensor in tensors.values()) <= 2 * len(content)
    for tensor in tensors.values():
        tensor.sum(dtype=np.float64)  # touches every byte


def read_as_journal(folder: Path, content: bytes) -> None:
    """The first byte says how many of the rest's bytes are the file of times."""
    where = folder / "attack"
    where.mkdir(exist_ok=True)
    cut = content[0] if content else 0
    (where / "seconds.jsonl").write_bytes(content[1 : 1 + cut])
    (where / "examples.jsonl").write_bytes(content[1 + cut :])
    (where / "settings.json").write_text('{"fingerprint": "ff"}')
    known = range(2000)
    journal = Journal(where, {}, "ff", list(known))
    for id, record in journal.done.items():
        assert record["id"] == id and id in known
    if journal.done:
        summarise(journal.done.values())
    again = Journal(where, {}, "ff", list(known))
    assert repr(sorted(again.done.items())) == repr(sorted(journal.done.items()))


# ---- files that are nearly right


_ODD_BYTES = st.sampled_from([b"\0", b"\xef\xbb\xbf", b'"', b'""', b"\r", b"\xff", b"\xe2\x80\xa8", b"\x1b[31m", b"\\"])
_WORDS = st.sampled_from(["a", "text", "label", "0", "1", "-1", "x y", "é", "<b>", "1e999", "9" * 30, ""]).map(
    str.encode
)
_PIECES = _WORDS | _ODD_BYTES | st.binary(max_size=4)
_ODD_JSON = st.sampled_from(
    [
        *("0", "-1", "1.5", "true", "null", '"x"', "[]", "{}", "1e400", "NaN", "9" * 40, "9" * 4400),
        *("[" * 60 + "]" * 60, '"\\ud800"', '"\\u0000"', '{"0": "a"}', '{"0": "a", "1": "b"}', '["a", "b"]'),
        *("10000000000", "1", "2", "32"),
    ]
)


@st.composite
def _rows(draw: Callable) -> bytes:
    kind = draw(st.integers(0, 2))
    if kind == 2:
        fields = st.tuples(st.sampled_from(["text", "label", "more", "text"]), _ODD_JSON)
        lines = [[("text", f'"{text}"'), ("label", "1" * number)] for number, text in enumerate("ab", start=1)]
        lines += draw(st.lists(st.lists(fields, max_size=4), max_size=3))
        body = "\n".join("{" + ", ".join(f'"{name}": {value}' for name, value in line) + "}" for line in lines)
        return bytes([kind]) + _damaged(draw, body.encode())
    mark = b"\t,"[kind : kind + 1]
    head = draw(st.sampled_from([[b"text", b"label"], [b"label", b"id", b"text"], [b"text", b"text", b"label"]]))
    field = st.lists(_PIECES, max_size=3).map(b"".join)
    whole = field if kind == 0 else field | field.map(lambda text: b'"' + text.replace(b'"', b'""') + b'"')
    lines = [[b"good", b"b", b"c"][: len(head)], [b"a", b"bad", b"d"][: len(head)]]
    how_many = draw(st.sampled_from([(len(head), len(head)), (len(head) - 1, len(head))]))
    lines += draw(st.lists(st.lists(whole, min_size=how_many[0], max_size=how_many[1]), max_size=4))
    ends = draw(st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"]))
    return bytes([kind]) + _damaged(draw, ends.join([mark.join(head), *(mark.join(line) for line in lines)]))


GOOD_CONFIG = {
    **{"vocab_size": "50", "hidden_size": "32", "num_hidden_layers": "2", "num_attention_heads": "4"},
    **{"intermediate_size": "48", "max_position_embeddings": "64", "type_vocab_size": "2", "layer_norm_eps": "1e-12"},
    **{"hidden_dropout_prob": "0.1", "initializer_range": "0.02", "pad_token_id": "0", "model_type": '"bert"'},
    **{"id2label": '{"0": "no", "1": "yes"}', "is_decoder": "false", "position_embedding_type": '"absolute"'},
    **{"num_labels": "2", "classifier_dropout": "null"},
}


@st.composite
def _config(draw: Callable) -> bytes:
    changes = draw(st.dictionaries(st.sampled_from([*GOOD_CONFIG, "label2id", "x"]), _ODD_JSON, max_size=3))
    fields = list((GOOD_CONFIG | changes).items()) + draw(
        st.lists(st.sampled_from(list(GOOD_CONFIG.items())), max_size=1)
    )
    return _damaged(draw, ("{" + ", ".join(f'"{name}": {value}' for name, value in fields) + "}").encode())


_SIZES = st.sampled_from([0, 1, 2, 3, 4, 2**24, 2**31, 2**40, 2**62, 2**63, 2**64 - 1])
_SHAPES = st.lists(st.integers(0, 4), max_size=3) | st.lists(_SIZES, max_size=4) | st.lists(st.just(1), max_size=40)
_NAMES = st.sampled_from(["a", "b", "bert.pooler.dense.weight", "", "\0", "é\n", "__metadata__"])


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


@st.composite
def _checkpoint(draw: Callable) -> bytes:
    def field(number: int, content: bytes) -> bytes:
        lie = draw(st.sampled_from([0] * 20 + [1, -1, 2**40]))
        return bytes([number << 3 | 2]) + _varint(max(0, len(content) + lie)) + content

    whole = b""
    for _ in range(draw(st.integers(1, 3))):
        shape = draw(_SHAPES)
        kind = draw(st.sampled_from(["Float32", "Float16", "BFloat16", "Int64", "Bool", "str", "Float64", "Complex"]))
        width = {"Float32": 4, "Float16": 2, "BFloat16": 2, "Int64": 8, "Float64": 8}.get(kind, 1)
        product = int(np.prod([float(size) for size in shape]))
        honest = product * width if product <= 100 else 8
        data = draw(st.binary(min_size=honest, max_size=honest) | st.binary(max_size=16))
        dims = b"".join(b"\x08" + _varint(size) for size in shape)
        if draw(st.booleans()):
            dims = field(1, b"".join(map(_varint, shape)))  # packed
        tensor = dims + field(2, kind.encode()) + field(3, data)
        whole += field(1, field(1, draw(_NAMES).encode()) + field(2, tensor))
    if draw(st.integers(0, 3)) == 0:
        whole += b"crc_num" + (zlib.crc32(whole) + draw(st.integers(0, 1))).to_bytes(10, "big")
    return _damaged(draw, whole)


@st.composite
def _safetensors(draw: Callable) -> bytes:
    entries, at = [], 0
    for _ in range(draw(st.integers(0, 3))):
        kind, width = draw(st.sampled_from([("F32", 4), ("F16", 2), ("BF16", 2), ("I32", 4), ("BOOL", 1), ("F4", 1)]))
        shape = draw(_SHAPES)
        product = int(np.prod([float(size) for size in shape]))
        length = product * width if product <= 100 else draw(st.integers(0, 8))
        offsets = [at, at + length]
        if draw(st.integers(0, 5)) == 0:
            offsets = draw(st.lists(_SIZES | st.integers(-1, 40), min_size=2, max_size=2))
        entries.append(
            f'"{draw(st.sampled_from("abc"))}": ' + json.dumps({"dtype": kind, "shape": shape, "data_offsets": offsets})
        )
        at += length
    if draw(st.integers(0, 3)) == 0:
        entries.append('"__metadata__": ' + draw(_ODD_JSON | st.just('{"format": "np"}')))
    header = ("{" + ", ".join(entries) + "}").encode()
    length = len(header) + draw(st.sampled_from([0] * 10 + [1, -1]))
    if draw(st.integers(0, 15)) == 0:
        length = draw(_SIZES)
    return _damaged(draw, struct.pack("<Q", length % 2**64) + header + draw(st.binary(min_size=at, max_size=at)))


@st.composite
def _journal(draw: Callable) -> bytes:
    names = ("id", "result", "queries", "num_words", "num_words_changed", "label", "original", "original_scores", "x")
    good = {"id": "7", "result": '"failed"', "queries": "5", "num_words": "9", "original": '{"text": "a"}'}
    lines = []
    for _ in range(draw(st.integers(0, 5))):
        changed = good | {
            "id": draw(st.sampled_from(["1", "2", "3", "1999", "2000", "-1", "true", '"1"', "1.0", "[1]"]))
        }
        changed |= draw(st.dictionaries(st.sampled_from(names), _ODD_JSON, max_size=2))
        lines.append("{" + ", ".join(f'"{name}": {value}' for name, value in changed.items()) + "}")
    times = draw(st.lists(_ODD_JSON.map(lambda value: f'{{"id": 1, "seconds": {value}}}\n'), max_size=2))
    head = "".join(times).encode()[:255]
    return bytes([len(head)]) + head + _damaged(draw, "\n".join(lines).encode())


def _damaged(draw: Callable, whole: bytes) -> bytes:
    """Leaves a file as it is, cuts it, flips a bit, or puts something odd into it."""
    how = draw(st.integers(0, 7))
    at = draw(st.integers(0, max(0, len(whole) - 1)))
    if how == 0:
        return whole[:at]
    if how == 1 and whole:
        return whole[:at] + bytes([whole[at] ^ 1 << draw(st.integers(0, 7))]) + whole[at + 1 :]
    if how == 2:
        return whole[:at] + draw(_ODD_BYTES) + whole[at:]
    return draw(st.binary(max_size=200)) if how == 3 and draw(st.integers(0, 3)) == 0 else whole


READERS: dict[str, tuple[Callable[[Path, bytes], None], st.SearchStrategy[bytes]]] = {
    "rows": (read_as_rows, _rows()),
    "config": (read_as_config, _config()),
    "checkpoint": (read_as_checkpoint, _checkpoint()),
    "safetensors": (read_as_safetensors, _safetensors()),
    "journal": (read_as_journal, _journal()),
}


def read_hostile(reader: str, folder: Path, content: bytes) -> bool:
    """Gives a file to a reader; returns whether it took it.

    Raises:
        anything but `UserError`: the reader is broken.
    """
    try:
        started = time.process_time()
        READERS[reader][0](folder, content)
        assert time.process_time() - started < MOST_SECONDS
    except UserError as error:
        assert any(path.name in str(error) for path in folder.iterdir()), error
        return False
    return True


# ---- the engines, each in a process of its own


def with_hypothesis(
    reader: str, folder: Path, examples: int, number: int, failures: Path | None = None
) -> tuple[int, int]:
    """Runs `examples` inputs of seed `number`; returns how many were run and how many were taken."""
    counts = [0, 0]

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(READERS[reader][1])
    def run(content: bytes) -> None:
        counts[0] += 1
        try:
            counts[1] += read_hostile(reader, folder, content)
        except Exception:
            if failures is not None:
                keep(failures, reader, content)
            raise

    run()
    return counts[0], counts[1]


def keep(failures: Path, reader: str, content: bytes) -> None:
    failures.mkdir(parents=True, exist_ok=True)
    (failures / f"{reader}-{hashlib.sha256(content).hexdigest()[:12]}").write_bytes(content)


def _hypothesis_process(reader: str, seconds: float, number: int, failures: Path) -> dict[str, Any]:
    started, run, taken, crashes = time.monotonic(), 0, 0, set()
    with tempfile.TemporaryDirectory(dir=memory_disk()) as name:
        _limit_memory()
        while time.monotonic() - started < seconds:
            number += 1
            try:
                more = with_hypothesis(reader, Path(name), 2000, number, failures)
                run, taken = run + more[0], taken + more[1]
            except BaseException as error:  # also a panic of a library in Rust
                if isinstance(error, KeyboardInterrupt):
                    raise
                crashes.add(f"{type(error).__name__}: {str(error)[:200]}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"executions": run, "taken": taken, "crashes": sorted(crashes), "peak_mib": round(peak)}


def _atheris_process(reader: str, seconds: float, number: int, failures: Path) -> None:
    import atheris
    from atheris.instrument_bytecode import patch_code

    for name, module in list(sys.modules.items()):
        if name.startswith(("mindspore_floodx.", "ckpt_convert.")):
            for value in list(vars(module).values()):
                if getattr(value, "__module__", None) == name and type(value).__name__ == "function":
                    # without its hooks of comparisons, which lose references until the interpreter ends
                    value.__code__ = patch_code(value.__code__, trace_dataflow=False)
    folder = Path(tempfile.mkdtemp(dir=memory_disk()))
    corpus = folder / "corpus"
    corpus.mkdir()
    for index, content in enumerate(_examples(reader, number)):
        (corpus / str(index)).write_bytes(content)
    failures.mkdir(parents=True, exist_ok=True)
    _limit_memory()
    options = [
        f"-max_total_time={seconds:.0f}",
        f"-max_len={LONGEST}",
        "-rss_limit_mb=0",
        f"-timeout={seconds + 1000:.0f}",  # atheris ends the process when this alarm rings, whatever it is doing
        f"-seed={number + 1}",
    ]
    options += [f"-artifact_prefix={failures}/{reader}-", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], str(corpus), *options], lambda content: read_hostile(reader, folder, content))
    atheris.Fuzz()


def _examples(reader: str, number: int) -> Iterator[bytes]:
    found: list[bytes] = []

    @seed(number)
    @settings(max_examples=200, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(READERS[reader][1])
    def collect(content: bytes) -> None:
        found.append(content)

    collect()
    yield from dict.fromkeys(found)


def memory_disk() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108  a fast disk; the folder in it is ours


def _limit_memory() -> None:
    import torch  # noqa: F401  what reads bfloat16; its import is not to count

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)


def _run_process(reader: str, engine: str, seconds: float, number: int, failures: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--process", reader, engine, str(seconds), str(number), str(failures)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=environment, timeout=3 * seconds + 300
        )
    except subprocess.TimeoutExpired:
        return {"executions": 0, "crashes": ["an input that a reader does not come to an end with"], "peak_mib": None}
    if engine == "hypothesis" and done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    runs = re.findall(r"stat::number_of_executed_units: (\d+)", done.stderr)
    peak = re.findall(r"stat::peak_rss_mb:\s+(\d+)", done.stderr)
    failed = re.findall(r"Uncaught Python exception: ===\s*\n(.*)", done.stderr)
    if done.returncode and not failed:
        why = re.findall(r"ERROR: libFuzzer: (.*)|^(\w*Error.*)$", done.stderr, re.MULTILINE)
        failed = [f"the process ended with {done.returncode}: {why[-1] if why else done.stderr[-500:]}"]
        (failures / f"{reader}-{engine}.log").write_text(done.stderr)
    executed = int(runs[-1]) if runs else 0
    return {"executions": executed, "crashes": failed, "peak_mib": int(peak[-1]) if peak else None}


def main() -> int:
    """Runs each reader under each engine for its share of the time, and adds the counts to the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--seconds", type=float, default=600, help="all readers and engines together (default 600)")
    add("--readers", nargs="+", choices=list(READERS), default=list(READERS), metavar="NAME")
    add("--engines", nargs="+", choices=("hypothesis", "atheris"), metavar="NAME", help="default: those installed")
    add("--output", type=Path, default=ROOT / "results" / "fuzz.json")
    add("--failures", type=Path, default=Path("runs/fuzz-failures"))
    add("--process", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.process:
        reader, engine, seconds, number, failures = arguments.process
        if engine == "atheris":
            _atheris_process(reader, float(seconds), int(number), Path(failures))
        print(json.dumps(_hypothesis_process(reader, float(seconds), int(number), Path(failures))))
        return 0
    engines = arguments.engines or ["hypothesis", *(["atheris"] if _version("atheris") else [])]
    result = json.loads(arguments.output.read_text()) if arguments.output.exists() else {"readers": {}}
    share = arguments.seconds / len(arguments.readers) / len(engines)
    found = 0
    for reader in arguments.readers:
        for engine in engines:
            kept = (
                result["readers"]
                .setdefault(reader, {})
                .setdefault(engine, {"executions": 0, "rounds": 0, "crashes": []})
            )
            new = _run_process(reader, engine, share, kept["rounds"] * 1_000_000, arguments.failures)
            found += len(new["crashes"])
            kept["executions"] += new["executions"]
            kept["rounds"] += 1
            kept["crashes"] = sorted({*kept["crashes"], *new["crashes"]})
            kept["peak_mib"] = max(kept.get("peak_mib") or 0, new["peak_mib"] or 0)
            each = [values for engines in result["readers"].values() for values in engines.values()]
            result |= {
                "executions": sum(values["executions"] for values in each),
                "crashes": sum(len(values["crashes"]) for values in each),
                "memory_beyond_imports_mib": MEMORY >> 20,
                "versions": {name: _version(name) for name in ("hypothesis", "atheris", "numpy", "safetensors")},
                "python": platform.python_version(),
            }
            write_json(arguments.output, result)
            print(f"{reader}, {engine}: {new['executions']:,} inputs, crashes: {new['crashes'] or 'none'}", flush=True)
    print(f"{result['executions']:,} inputs in all: {arguments.output}")
    return 1 if found else 0


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    run_command(main)
