"""MindSpore's GPU part compiles the graphs of every method: each tensor operator has a kernel for the GPU.

CUDA is a stand-in that hands out the host's memory and runs no kernel, so nothing is computed.
"""

import os
import re
import subprocess
import sys

import fake_cuda
import pytest

from mindspore_floodx import cuda_libraries
from mindspore_floodx.methods import method_names

pytestmark = pytest.mark.slow

# What MindSpore leaves to the host: numbers, shapes, and tuples of them.
HOST = {"RealMakeTuple", "RealTupleGetItem", "Shape", "ShapeCalc", "TupleToTensor", "TensorToScalar", "ScalarToTensor"}
HOST |= {"ScalarAdd", "ScalarSub", "ScalarMul", "ScalarDiv", "ScalarFloorDiv", "ScalarMod", "ScalarCast"}

BEGIN = """
import os, sys
from mindspore_floodx import cuda_driver
cuda_driver.DRIVER_PLACES = (os.environ["FLOODX_CUDA_LIBRARIES"] + "/libcuda.so.1",)
from mindspore_floodx.device import use_device
use_device("GPU")
import mindspore as ms
from mindspore_floodx import self_check
from mindspore_floodx.bert import BertConfig, BertForSequenceClassification
model = BertForSequenceClassification(BertConfig.from_dict(self_check.SIZES))
"""
COMPILE = {
    "evaluation": "from mindspore_floodx.evaluation import Evaluator; Evaluator(model).compile()",
    "accordance": "from mindspore_floodx.accordance import GradientAccordance\n"
    "from mindspore_floodx.defences.base import batch_shapes\n"
    "measure = GradientAccordance(model)\nmeasure.compile()",
    "no kernel": "from mindspore import nn, ops\n"
    "class Eig(nn.Cell):\n"
    "    def __init__(self): super().__init__(); self.eig = ops.operations.math_ops.Eig()\n"
    "    def construct(self, x): return self.eig(x)\n"
    "Eig().compile(ms.Tensor([[1.0]], ms.float32))",
}
METHOD = """
from mindspore_floodx.layers import compute_in_half
from mindspore_floodx.loss_scale import LossScale
from mindspore_floodx.methods import find_defence
from mindspore_floodx.optim import AdamW
from mindspore_floodx.settings import resolve
method, *more = sys.argv[1].split()
given = {"flood_level": 0.1} if method == "flooding" else {}
settings = resolve({"dataset": "demo", "method": method} | given)
scale = None
if "float16" in more:
    compute_in_half(model.bert.encoder)
    scale = LossScale(65536.0, 2000)
if "recompute" in more:
    model.bert.encoder.recompute_activations()
find_defence(method)(model, AdamW(model.trainable_params(), [1e-3, 1e-4], loss_scale=scale), settings).compile()
"""
HALF = ["flooding float16", "infobert float16", "freelb float16 recompute"]


@pytest.fixture(scope="module")
def cuda(tmp_path_factory):
    plugin = cuda_libraries.plugin_path()
    if plugin is None:
        pytest.skip("this MindSpore has no GPU part")
    names = [library.name for library in cuda_libraries.LIBRARIES]
    return fake_cuda.make_libraries(tmp_path_factory.mktemp("cuda"), names, plugin, fake_cuda.RUNTIME)


def left_to_the_host(what, cuda):
    """Compiles and returns the operators for which MindSpore finds no kernel of the GPU, as its log names them."""
    end = "\nprint('compiled for', ms.get_context('device_target'), flush=True)\nos._exit(0)\n"  # the card is not asked
    environment = os.environ | {"FLOODX_CUDA_LIBRARIES": str(cuda), "GLOG_v": "1"}
    script = cuda / "compile.py"  # a file, since MindSpore reads the source of what it compiles
    script.write_text(BEGIN + COMPILE.get(what, METHOD) + end)
    done = subprocess.run([sys.executable, script, what], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "compiled for GPU" in done.stdout, done.stderr[-3000:]
    return set(re.findall(r"GPU doesn't support the kernel (\w+)", done.stderr + done.stdout))


@pytest.mark.parametrize("what", [*method_names(), *HALF, "evaluation", "accordance"])
def test_every_operator_has_a_kernel(what, cuda):
    assert left_to_the_host(what, cuda) - HOST == set()


def test_an_operator_without_one_is_seen(cuda):
    assert left_to_the_host("no kernel", cuda) == {"Eig"}
