"""Exports tiny models of every family and loads them in transformers: the same logits, no missing
and no unexpected key; and what transformers saves, the program reads.

Usage: hf_roundtrip.py SHOESTRING FOLDER     (with a Python that has torch and transformers)

SHOESTRING is the binary, FOLDER is tests/data/hf. Prints a line a model; any difference ends with
an error.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, __version__, logging

logging.set_verbosity_error()
logging.disable_progress_bar()
TOLERANCE = 2e-4  # of the logits' deviation


def run(*words):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, words))} failed: {done.stderr}")


def logits_of(folder, ids):
    model, facts = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    with torch.no_grad():
        return model(ids.long(), use_cache=False).logits, facts, model


def is_module(key, folder):
    """transformers ignores the prediction module of 61 layers only and reports that of others."""
    config = json.loads((folder / "config.json").read_text())
    return key.startswith(f"model.layers.{config['num_hidden_layers']}.")


def attends_otherwise(folder):
    """transformers 4's DeepSeek-V2 leaves YaRN's mscale out of the softmax's scale."""
    config = json.loads((folder / "config.json").read_text())
    return (__version__.startswith("4.") and config["model_type"] == "deepseek_v2"
            and (config.get("rope_parameters") or {}).get("mscale_all_dim", 0) > 0)


def distance(left, right):
    return ((left - right).abs().max() / right.std()).item()


def ours(binary, folder, ids, temporary):
    (temporary / "ids.json").write_text(json.dumps(ids.tolist()))
    run(binary, "logits", "--model", folder, "--ids", temporary / "ids.json", "--dtype", "f32",
        "--out", temporary / "logits.safetensors")
    return load_file(temporary / "logits.safetensors")["logits"]


def check(binary, folder, temporary):
    golden = load_file(folder / "golden.safetensors")
    run(binary, "import", folder, "--out", temporary / "run")
    run(binary, "export", temporary / "run", "--format", "hf", "--out", temporary / "hf", "--dtype",
        "f32", "--shard-size", "40KB")
    logits, facts, model = logits_of(temporary / "hf", golden["ids"])
    missing = list(facts["missing_keys"])
    unexpected = [k for k in facts["unexpected_keys"] if not is_module(k, temporary / "hf")]
    there = distance(logits, golden["logits"])
    model.save_pretrained(temporary / "saved", max_shard_size="50KB")
    back = distance(ours(binary, temporary / "saved", golden["ids"], temporary), golden["logits"])
    if attends_otherwise(folder):
        print(f"{folder.name}: another softmax scale in transformers {__version__}, "
              f"logits not compared ({there:.1e})")
        there = 0
    if missing or unexpected or there > TOLERANCE or back > TOLERANCE:
        sys.exit(f"{folder.name}: missing {missing}, unexpected {unexpected}, "
                 f"distances {there:.2e}, {back:.2e}")
    print(f"{folder.name}: no missing and no unexpected key; distance in transformers {there:.1e}, "
          f"back here {back:.1e} of the logits' deviation")


def main():
    binary, root = sys.argv[1], pathlib.Path(sys.argv[2])
    names = sys.argv[3:] or sorted(f.name for f in root.iterdir() if f.is_dir())
    for name in names:
        with tempfile.TemporaryDirectory() as temporary:
            check(binary, root / name, pathlib.Path(temporary))
    print(f"{len(names)} models")


main()
