"""Run by the Python of mindnlp's environment: loads a BERT model through mindnlp and saves it as a Hugging Face folder.

It imports nothing of this package, which that environment need not have. `mindnlp_models` starts it.
"""

import sys


def main(name: str, target: str) -> None:
    """Loads the model and the tokenizer `name` (a folder or a hub id) and writes both to the folder `target`."""
    try:
        import mindnlp  # noqa: F401 - first, for it takes PyTorch's place in this process
    except ModuleNotFoundError as error:
        raise SystemExit(f"error: {sys.executable} cannot import mindnlp ({error})") from None
    from mindnlp.transformers import AutoConfig, AutoTokenizer, BertForSequenceClassification, BertModel

    config = AutoConfig.from_pretrained(name)
    if config.model_type != "bert":
        raise SystemExit(f"error: {name} is a {config.model_type} model; only BERT can be trained here")
    classifies = "BertForSequenceClassification" in (config.architectures or [])
    kind = BertForSequenceClassification if classifies else BertModel
    # safetensors alone: mindnlp 0.5.1 unpickles a .bin file with whatever code is in it
    model, loading = kind.from_pretrained(name, output_loading_info=True, use_safetensors=True)
    drawn = set(loading["missing_keys"]) | {key for key, *_ in loading["mismatched_keys"]}
    # what mindnlp drew at random is left out: whoever trains draws it again, from the seed of the run
    model.save_pretrained(
        target, state_dict={key: value for key, value in model.state_dict().items() if key not in drawn}
    )
    AutoTokenizer.from_pretrained(name).save_pretrained(target)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:  # of three libraries; the last line is what the caller shows
        raise SystemExit(f"error: {type(error).__name__}: {' '.join(str(error).split())}") from error
