"""The .ckpt format against MindSpore itself, and against files that lie."""

import numpy as np
import pytest

from ckpt_convert import checkpoint_file
from ckpt_convert.checkpoint_file import read_ckpt, write_ckpt
from mindspore_floodx.errors import UserError

RANDOM = np.random.default_rng(0)
TENSORS = {
    "bert.weight": RANDOM.normal(size=(37, 5)).astype(np.float32),
    "bert.LayerNorm.gamma": np.array([np.nan, -np.inf, -0.0, 1e-45], dtype=np.float32),
    "scalar": np.array(2.5, dtype=np.float32),
    "step": np.array([3], dtype=np.int32),
    "flag": np.array([True, False]),
    "a name longer than one byte can count " + "x" * 120: np.zeros((1, 2, 3), dtype=np.float32),
}


def same(left, right):
    return [(name, a.dtype, a.shape, a.tobytes()) for name, a in left.items()] == [
        (name, a.dtype, a.shape, a.tobytes()) for name, a in right.items()
    ]


def save_with_mindspore(path, tensors, **options):
    import mindspore

    mindspore.save_checkpoint(
        [{"name": name, "data": mindspore.Tensor(tensor)} for name, tensor in tensors.items()], str(path), **options
    )


def message(shape, kind, data, name="a"):
    """One entry as MindSpore's own protocol-buffer classes write it."""
    from mindspore.train.checkpoint_pb2 import Checkpoint

    checkpoint = Checkpoint()
    entry = checkpoint.value.add()
    entry.tag = name
    entry.tensor.dims.extend(shape)
    entry.tensor.tensor_type = kind
    entry.tensor.tensor_content = data
    return checkpoint.SerializeToString()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("ckpt") / "model.ckpt"
    save_with_mindspore(path, TENSORS)
    return path


def test_reads_what_mindspore_wrote(saved):
    assert same(read_ckpt(saved), TENSORS)


def test_writes_what_mindspore_would_write(saved, tmp_path):
    write_ckpt(tmp_path / "ours.ckpt", TENSORS)
    assert (tmp_path / "ours.ckpt").read_bytes() == saved.read_bytes()


def test_mindspore_reads_what_was_written(tmp_path):
    import mindspore

    write_ckpt(tmp_path / "ours.ckpt", TENSORS)
    loaded = mindspore.load_checkpoint(str(tmp_path / "ours.ckpt"))
    assert same({name: parameter.asnumpy() for name, parameter in loaded.items()}, TENSORS)


def test_tensors_in_several_slices(tmp_path, monkeypatch):
    import mindspore.train.serialization as serialization

    big = {"first": RANDOM.normal(size=(1000, 3)).astype(np.float32), "second": TENSORS["bert.weight"]}
    monkeypatch.setattr(serialization, "SLICE_SIZE", 1)  # kilobytes; 512 MB in earnest
    monkeypatch.setattr(checkpoint_file, "_SLICE_BYTES", 1024)
    save_with_mindspore(tmp_path / "theirs.ckpt", big)
    write_ckpt(tmp_path / "ours.ckpt", big)
    assert (tmp_path / "ours.ckpt").read_bytes() == (tmp_path / "theirs.ckpt").read_bytes()
    assert (tmp_path / "ours.ckpt").read_bytes().count(b"first") == 12
    assert same(read_ckpt(tmp_path / "theirs.ckpt"), big)


def test_checksum(tmp_path):
    path = tmp_path / "checked.ckpt"
    save_with_mindspore(path, TENSORS, crc_check=True)
    assert same(read_ckpt(path), TENSORS)
    whole = bytearray(path.read_bytes())
    whole[60] ^= 1  # inside the first tensor's bytes
    path.chmod(0o600)
    path.write_bytes(whole)
    with pytest.raises(UserError, match="its checksum is wrong"):
        read_ckpt(path)


def test_text_entries_are_left_out_and_half_precision_is_widened(tmp_path):
    import mindspore

    path = tmp_path / "mixed.ckpt"
    values = np.array([1.0, -3.140625, 65280.0], dtype=np.float32)  # exact in bfloat16
    entries = [
        {"name": "half", "data": mindspore.Tensor(values, mindspore.float16)},
        {"name": "brain", "data": mindspore.Tensor(values, mindspore.bfloat16)},
    ]
    mindspore.save_checkpoint(entries, str(path), append_dict={"note": "by me", "epoch_num": 3})
    upcast = {}
    read = read_ckpt(path, upcast)
    assert upcast == {"half": "float16", "brain": "bfloat16"} and "note" not in read
    assert np.array_equal(read["brain"], values) and np.array_equal(read["half"], values.astype(np.float16))
    assert read["epoch_num"].item() == 3


def test_a_file_cut_anywhere_but_between_two_tensors_is_noticed(saved, tmp_path):
    whole, path = saved.read_bytes(), tmp_path / "cut.ckpt"
    read = set()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            read.add(len(read_ckpt(path)))
        except UserError as error:
            assert "not a whole MindSpore checkpoint" in str(error)
    # A cut between two tensors leaves a valid, shorter file; its missing tensors are the converter's to notice.
    assert read == set(range(1, len(TENSORS)))


@pytest.mark.parametrize(
    ("shape", "kind", "size", "said"),
    [
        ([1_000_000, 1_000_000], "Float32", 16, "claims shape"),
        ([1 << 40, 1 << 40], "Float32", 16, "claims shape"),
        ([-1, -4], "Float32", 16, "claims shape"),
        ([3], "Float32", 16, "claims shape"),
        ([0], "Float32", 8, "claims shape"),
        ([4], "Quaternion", 16, "unknown type 'Quaternion'"),
    ],
)
def test_sizes_that_contradict_each_other(tmp_path, shape, kind, size, said):
    (tmp_path / "lie.ckpt").write_bytes(message([2], "Int32", b"12345678", "good") + message(shape, kind, b"\0" * size))
    with pytest.raises(UserError, match=said):
        read_ckpt(tmp_path / "lie.ckpt")


def test_a_tensor_that_is_there_twice(tmp_path):
    one, other = message([1], "Int32", b"1234", "a"), message([1], "Int32", b"1234", "b")
    (tmp_path / "twice.ckpt").write_bytes(one + other + one)
    with pytest.raises(UserError, match="'a' is there twice"):
        read_ckpt(tmp_path / "twice.ckpt")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"PK\x03\x04 a zip archive",
        b"<html>",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # an entry of 2^63 bytes
        b"\x0a" + b"\xff" * 30,  # a number without an end
        b"\x0a\x00",  # an empty entry
        b"\x0a\x04\x0a\x02\xff\xfe",  # a name that is not UTF-8
        b"\x0a\x02\x08\x01",  # a number where the name belongs
        b"\x08\x01",
    ],
)
def test_what_is_no_checkpoint_at_all(tmp_path, content):
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.ckpt is not a whole MindSpore checkpoint"):
        read_ckpt(tmp_path / "x.ckpt")


def test_flipped_bits_never_end_in_anything_but_a_sentence(saved, tmp_path):
    random, whole = np.random.default_rng(1), saved.read_bytes()
    for _ in range(300):
        damaged = bytearray(whole)
        for place in random.integers(len(whole), size=3):
            damaged[place] ^= 1 << int(random.integers(8))
        (tmp_path / "x.ckpt").write_bytes(damaged)
        try:
            read_ckpt(tmp_path / "x.ckpt")
        except UserError:
            pass


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*none\.ckpt"):
        read_ckpt(tmp_path / "none.ckpt")
