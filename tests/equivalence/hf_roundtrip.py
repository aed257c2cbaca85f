"""Exports tiny models of every family and loads them in transformers: the same logits, no missing
and no unexpected key; and what transformers saves, the program reads. Exports in FP8 too, of models
whose widths are and are not multiples of 128: transformers 5 reads them (on a CPU with accelerate);
version 4 refuses FP8 without a GPU, so there the blocks are multiplied by their scales here.

Usage: hf_roundtrip.py SHOESTRING FOLDER     (Python: torch, transformers, accelerate)

SHOESTRING is the binary, FOLDER is tests/data/hf. Prints a line a model; any difference ends with
an error.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file
from transformers import (AutoConfig, AutoModelForCausalLM, AutoTokenizer, DeepseekV2Config,
                          DeepseekV3Config, __version__, logging)

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
    """transformers ignores the prediction module of 61 layers only and reports those of others."""
    words, layers = key.split("."), config_of(folder)["num_hidden_layers"]
    return words[:2] == ["model", "layers"] and int(words[2]) >= layers


def attends_otherwise(folder):
    """transformers 4's DeepSeek-V2 leaves YaRN's mscale out of the softmax's scale."""
    config = config_of(folder)
    return (__version__.startswith("4.") and config["model_type"] == "deepseek_v2"
            and (config.get("rope_parameters") or {}).get("mscale_all_dim", 0) > 0)


def distance(left, right):
    return ((left - right).abs().max() / right.std()).item()


def ours(binary, folder, ids, temporary):
    (temporary / "ids.json").write_text(json.dumps(ids.tolist()))
    (temporary / "logits.safetensors").unlink(missing_ok=True)
    run(binary, "logits", "--model", folder, "--ids", temporary / "ids.json", "--dtype", "f32",
        "--out", temporary / "logits.safetensors")
    return load_file(temporary / "logits.safetensors")["logits"]


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def check_no_modules(binary, folder, ids, temporary):
    """Without prediction modules there is no unexpected key at all."""
    run(binary, "export", folder, "--no-mtp", "--out", temporary / "bare", "--dtype", "f32")
    logits, facts, _ = logits_of(temporary / "bare", ids)
    if facts["missing_keys"] or facts["unexpected_keys"]:
        sys.exit(f"{folder.name} --no-mtp: missing {facts['missing_keys']}, "
                 f"unexpected {facts['unexpected_keys']}")
    return logits


FP8_BASE = dict(vocab_size=96, hidden_size=256, intermediate_size=384, num_hidden_layers=3,
                num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
                initializer_range=0.08, tie_word_embeddings=False)
FP8_EXPERTS = dict(moe_intermediate_size=128, num_experts=8, num_experts_per_tok=2, head_dim=64,
                   norm_topk_prob=True)
FP8_LATENT = dict(num_key_value_heads=4, n_routed_experts=8, num_experts_per_tok=2, n_group=1,
                  topk_group=1, n_shared_experts=1, moe_intermediate_size=128, kv_lora_rank=128,
                  q_lora_rank=128, qk_nope_head_dim=64, qk_rope_head_dim=64, v_head_dim=64,
                  first_k_dense_replace=1, rope_parameters=dict(rope_type="default",
                                                                rope_theta=10000.0))
# name: (model_type, settings, tensors in FP8, a name that must stay plain)
FP8_MODELS = {
    "llama": ("llama", {}, 3 * 7, "lm_head"),
    # 320 rows have 3 scales of blocks, and no multiple of 3; 192 rows have 2, and would be read
    # silently in blocks of 96.
    "llama of a cut mlp": ("llama", dict(intermediate_size=320), 3 * 4, "up_proj"),
    "llama of cut heads": ("llama", dict(head_dim=96), 3 * 4, "k_proj"),
    "qwen3_moe": ("qwen3_moe", FP8_EXPERTS, 3 * (4 + 8 * 3), "mlp.gate.weight"),
    "qwen3_moe of cut experts": ("qwen3_moe", {**FP8_EXPERTS, "moe_intermediate_size": 192},
                                 3 * 4, "experts.7.down_proj"),
    "mixtral": ("mixtral", dict(num_local_experts=4), 3 * (4 + 4 * 3), "gate.weight"),
    # kv_a_proj_with_mqa has 192 rows, and q_a_proj goes with it.
    "deepseek_v2": ("deepseek_v2", {**FP8_LATENT, "norm_topk_prob": False},
                    3 * 3 + 3 + 2 * 9 * 3, "q_a_proj"),
    "deepseek_v3": ("deepseek_v3", {**FP8_LATENT, "norm_topk_prob": True},
                    3 * 3 + 3 + 2 * 9 * 3, "kv_a_proj_with_mqa"),
    "deepseek_v3 of a cut mlp": ("deepseek_v3", {**FP8_LATENT, "intermediate_size": 704,
                                                 "norm_topk_prob": True},
                                 3 * 3 + 2 * 9 * 3, "mlp.down_proj"),
}


def tensors_of(folder):
    stored = {}
    for file in sorted(folder.glob("model*.safetensors")):
        stored.update(load_file(file))
    return stored


def dequantise(folder, to):
    """A folder with the values that the codes and their blocks' scales stand for."""
    config = config_of(folder)
    rows, columns = config.pop("quantization_config")["weight_block_size"]
    stored, weights = tensors_of(folder), {}
    for name, values in stored.items():
        if name.endswith("_scale_inv"):
            continue
        if name + "_scale_inv" in stored:
            assert values.dtype == torch.float8_e4m3fn, name
            scale = stored[name + "_scale_inv"]
            scale = scale.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
            values = values.float() * scale[:values.shape[0], :values.shape[1]]
        weights[name] = values.float().contiguous()
    to.mkdir()
    save_file(weights, to / "model.safetensors", {"format": "pt"})
    (to / "config.json").write_text(json.dumps(config))


def check_fp8(binary, name, temporary):
    kind, settings, count, plain = FP8_MODELS[name]
    torch.manual_seed(5)
    config = AutoConfig.for_model(kind, **{**FP8_BASE, **settings})
    AutoModelForCausalLM.from_config(config).save_pretrained(temporary / "made")
    fp8, read = temporary / "fp8", temporary / "fp8"
    run(binary, "export", temporary / "made", "--fp8", "--out", fp8, "--dtype", "f32",
        "--shard-size", "4MB")
    ids = torch.randint(0, 96, (2, 20))
    if __version__.startswith("4."):
        read = temporary / "dequantised"
        dequantise(fp8, read)
    logits, facts, _ = logits_of(read, ids)
    stored = tensors_of(fp8)
    codes = [n for n, t in stored.items() if t.dtype == torch.float8_e4m3fn]
    apart = distance(ours(binary, fp8, ids, temporary), logits)
    moved = distance(ours(binary, temporary / "made", ids, temporary), logits)
    if (len(codes) != count or any(plain in n for n in codes) or facts["missing_keys"]
            or facts["unexpected_keys"] or apart > TOLERANCE or moved < 1e-3):
        sys.exit(f"{name} --fp8: {len(codes)} tensors of {count}, missing "
                 f"{facts['missing_keys']}, unexpected {facts['unexpected_keys']}, "
                 f"distance {apart:.2e}, moved by {moved:.2e}")
    print(f"{name} --fp8: {len(codes)} of {len(stored)} tensors, no missing and no unexpected key; "
          f"distance {apart:.1e} (FP8 itself moves logits by {moved:.1e})")


def check_codes_return(binary, folder, temporary):
    """A published FP8 folder, imported and exported: every code and every scale as it was."""
    run(binary, "import", folder, "--out", temporary / "run")
    run(binary, "export", temporary / "run", "--fp8", "--out", temporary / "hf", "--dtype", "bf16")
    before, after = tensors_of(folder), tensors_of(temporary / "hf")
    other = [n for n, t in before.items() if n not in after or not torch.equal(
        t.float(), after[n].float())]
    if other or len(before) != len(after):
        sys.exit(f"{folder.name}: other values after import and export --fp8: {other}")
    print(f"{folder.name}: all {len(before)} tensors come back with import and export --fp8")


def check_without_shared_experts(binary, temporary):
    for kind in (DeepseekV2Config, DeepseekV3Config):
        torch.manual_seed(3)
        config = kind(vocab_size=96, hidden_size=32, intermediate_size=48, moe_intermediate_size=12,
                      num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
                      n_routed_experts=8, num_experts_per_tok=2, n_shared_experts=0, n_group=1,
                      topk_group=1, kv_lora_rank=16, q_lora_rank=12, qk_nope_head_dim=8,
                      qk_rope_head_dim=4, v_head_dim=6, first_k_dense_replace=1,
                      max_position_embeddings=64, norm_topk_prob=kind is DeepseekV3Config,
                      initializer_range=0.3)
        made = temporary / kind.model_type
        AutoModelForCausalLM.from_config(config).save_pretrained(made / "saved")
        ids = torch.randint(0, 96, (2, 20))
        want, _, _ = logits_of(made / "saved", ids)
        here = distance(ours(binary, made / "saved", ids, temporary), want)
        run(binary, "export", made / "saved", "--out", made / "hf", "--dtype", "f32")
        logits, facts, _ = logits_of(made / "hf", ids)
        there = distance(logits, want)
        if facts["missing_keys"] or facts["unexpected_keys"] or max(here, there) > TOLERANCE:
            sys.exit(f"{kind.model_type} without shared experts: {facts}, {here:.2e}, {there:.2e}")
        print(f"{kind.model_type} without shared experts: no missing and no unexpected key; "
              f"distance here {here:.1e}, in transformers {there:.1e}")


TRAINED = """
threads = 2
tokenizer = "{tokenizer}"
[run]
directory = "{folder}/run"
[train]
steps = 40
batch = 8
micro_batch = 4
sequence_length = 64
measure_peak = false
[model]
layers = 2
hidden = 64
ffn = 128
max_positions = 64
{model}
[optim]
lr = 5e-3
[data]
held_out = 0.1
[[data.sources]]
name = "text"
path = "{folder}/text.h5"
"""
TRAINED_MODELS = {
    "llama": "heads = 4\nkv_heads = 2",
    "deepseek_v3": """heads = 4
[model.mla]
kv_latent = 24
q_latent = 32
nope_dim = 16
rope_dim = 8
v_dim = 16
[model.moe]
experts = 8
chosen = 2
ffn = 32
shared = 1
first_dense = 1
scores = "sigmoid"
[model.moe.balance]
bias_speed = 0.01
[model.mtp]
depth = 1
""",
}


def check_trained(binary, data, temporary):
    """A run of a few steps on real text, exported: text, ids and logits as here."""
    tokenizer = data / "tokenizer" / "trained_gpt2.json"
    for name, model in TRAINED_MODELS.items():
        folder = temporary / f"trained_{name}"
        folder.mkdir()
        run(binary, "data", "pack", data / "tiny" / "persuasion.jsonl", "--tokenizer", tokenizer,
            "--out", folder / "text.h5", "--quiet")
        (folder / "run.toml").write_text(
            TRAINED.format(tokenizer=tokenizer, folder=folder, model=model))
        run(binary, "train", folder / "run.toml")
        run(binary, "export", folder / "run", "--out", folder / "hf", "--dtype", "f32", "--no-mtp")
        words = AutoTokenizer.from_pretrained(folder / "hf")
        ids = torch.tensor([words("Sir Walter Elliot, of Kellynch Hall, in Somersetshire, was a "
                                  "man who, for his own amusement")["input_ids"]])
        logits, facts, _ = logits_of(folder / "hf", ids)
        apart = distance(ours(binary, folder / "run", ids, temporary), logits)
        loss = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:].long()).item()
        if facts["missing_keys"] or facts["unexpected_keys"] or apart > TOLERANCE:
            sys.exit(f"trained {name}: missing {facts['missing_keys']}, unexpected "
                     f"{facts['unexpected_keys']}, distance {apart:.2e}")
        if loss > 0.9 * torch.tensor(float(logits.shape[-1])).log():
            sys.exit(f"trained {name}: a loss of {loss:.2f} in transformers, as if untrained")
        print(f"trained {name}: no missing and no unexpected key, loss of a sentence {loss:.2f}, "
              f"distance in transformers {apart:.1e}")


def check(binary, folder, temporary):
    golden = load_file(folder / "golden.safetensors")
    run(binary, "import", folder, "--out", temporary / "run")
    run(binary, "export", temporary / "run", "--format", "hf", "--out", temporary / "hf", "--dtype",
        "f32", "--shard-size", "40KB")
    logits, facts, model = logits_of(temporary / "hf", golden["ids"])
    missing = list(facts["missing_keys"])
    unexpected = [k for k in facts["unexpected_keys"] if not is_module(k, temporary / "hf")]
    bare = check_no_modules(binary, temporary / "hf", golden["ids"], temporary)
    there = max(distance(logits, golden["logits"]), distance(bare, golden["logits"]))
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
    for name in FP8_MODELS:
        with tempfile.TemporaryDirectory() as temporary:
            check_fp8(binary, name, pathlib.Path(temporary))
    for name in ("deepseek_v3_fp8", "qwen3_fp8"):
        with tempfile.TemporaryDirectory() as temporary:
            check_codes_return(binary, root / name, pathlib.Path(temporary))
    with tempfile.TemporaryDirectory() as temporary:
        check_without_shared_experts(binary, pathlib.Path(temporary))
        check_trained(binary, root.parent, pathlib.Path(temporary))
    print(f"{len(names)} models")


main()
