"""Writes tests/data/hf: tiny random models of every family and variant, with transformers' logits.

Usage: make_hf_goldens.py FOLDER [NAME...]     (made with torch 2.9, transformers 5.23)

Each FOLDER/NAME is a Hugging Face folder (config.json in the words of transformers 4 or 5, bf16
weights under the names that files have) and golden.safetensors: ids i32 [2, S] and the logits f32
[2, S, V] that transformers computes in f32. Families' first models also have gradients.json: the
mean cross-entropy of the next ids in f64, and of its gradient by each tensor the norm and four
projections on signs (see signs()). With prediction modules, which transformers' MtpModel computes,
also the sum of each module's losses and how often it names the main model's token, and the gradient
is that of both losses.
"""
import json
import pathlib
import shutil
import sys
import tempfile

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, DeepseekV3ForCausalLM
from transformers.modeling_layers import MtpModel

VOCABULARY, LENGTH = 64, 24
BASE = dict(vocab_size=VOCABULARY, hidden_size=32, intermediate_size=40, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
            bos_token_id=1, eos_token_id=2, rms_norm_eps=1e-5, tie_word_embeddings=False)
MLA = dict(num_key_value_heads=4, kv_lora_rank=16, q_lora_rank=12, qk_nope_head_dim=8,
           qk_rope_head_dim=4, v_head_dim=6, rms_norm_eps=1e-6)
EXPERTS = dict(n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=2,
               moe_intermediate_size=12, first_k_dense_replace=1, num_nextn_predict_layers=0)
DEEP = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=32.0,
            beta_slow=1.0, rope_theta=10000.0)
V3 = dict(**MLA, **EXPERTS, n_group=4, topk_group=2, routed_scaling_factor=2.5,
          norm_topk_prob=True)
QWEN = dict(use_sliding_window=False, rms_norm_eps=1e-6,
            rope_parameters=dict(rope_type="default", rope_theta=1e6))
SPARSE = dict(moe_intermediate_size=12, num_experts=8, num_experts_per_tok=2, head_dim=8)


def rope(kind, **more):
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=1000.0, **more))


# name: (model_type, settings, options)
CASES = {
    "llama": ("llama", {**BASE, "num_key_value_heads": 4}, {"gradients", "shards", "words4"}),
    "llama_gqa_llama3": ("llama", {**BASE, "tie_word_embeddings": True, **rope(
        "llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=32)}, {"gradients"}),
    "llama_linear": ("llama", {**BASE, "head_dim": 12, **rope("linear", factor=2.5)}, {"words4"}),
    "llama_yarn": ("llama", {**BASE, "num_key_value_heads": 1, **rope(
        "yarn", factor=4.0, original_max_position_embeddings=16)}, set()),
    "mistral_window": ("mistral", {**BASE, "sliding_window": 7, "head_dim": 10}, {"words4"}),
    "qwen2": ("qwen2", {**BASE, **QWEN}, {"gradients", "words4"}),
    "qwen2_tied": ("qwen2", {**BASE, **QWEN, "tie_word_embeddings": True}, set()),
    "qwen3": ("qwen3", {**BASE, **QWEN, "head_dim": 12, "tie_word_embeddings": True},
              {"gradients"}),
    "qwen3_moe": ("qwen3_moe", {**BASE, **QWEN, **SPARSE, "norm_topk_prob": True},
                  {"gradients", "words4"}),
    "qwen3_moe_sparse_step": ("qwen3_moe", {
        **BASE, **QWEN, **SPARSE, "norm_topk_prob": False, "num_hidden_layers": 3,
        "decoder_sparse_step": 2, "num_experts_per_tok": 3}, set()),
    "mixtral": ("mixtral", {**BASE, "num_local_experts": 6, "intermediate_size": 16},
                {"gradients"}),
    "deepseek_v2": ("deepseek_v2", {
        **BASE, **MLA, **EXPERTS, "topk_method": "group_limited_greedy", "n_group": 4,
        "topk_group": 2, "routed_scaling_factor": 4.0, "n_shared_experts": 2,
        "rope_parameters": dict(**DEEP, mscale=0.707, mscale_all_dim=0.707)}, {"gradients"}),
    "deepseek_v2_lite": ("deepseek_v2", {
        **BASE, **MLA, **EXPERTS, "q_lora_rank": None, "topk_method": "greedy",
        "n_shared_experts": 2, "num_experts_per_tok": 3}, {"words4"}),
    "deepseek_v3": ("deepseek_v3", {
        **BASE, **V3, "rope_parameters": dict(**DEEP, mscale=1.0, mscale_all_dim=1.0)},
        {"gradients", "words4"}),
    "deepseek_v3_mtp": ("deepseek_v3", {**BASE, **V3, "num_nextn_predict_layers": 1}, {"mtp"}),
    "deepseek_v3_fp8": ("deepseek_v3", {**BASE, **V3, "num_hidden_layers": 3},
                        {"fp8", "words4"}),
    "moonlight": ("deepseek_v3", {
        **BASE, **V3, "q_lora_rank": None, "n_group": 1, "topk_group": 1, "n_shared_experts": 2,
        "num_experts_per_tok": 3, "routed_scaling_factor": 2.446}, set()),
    "deepseek_v3_mtp3": ("deepseek_v3", {**BASE, **V3, "num_nextn_predict_layers": 3}, {"mtp"}),
    "qwen3_fp8": ("qwen3", {**BASE, **QWEN, "head_dim": 12, "tie_word_embeddings": True},
                  {"fp8", "bf16_scales"}),
}
BLOCK = 16  # of FP8 here, so that a tiny matrix has several and cut ones


def random_values(name, tensor, rng):
    """bf16 values of a size that makes every part of the model matter."""
    if name.endswith("e_score_correction_bias"):
        return torch.randn(tensor.shape, generator=rng) * 0.1
    if name.endswith("bias"):
        values = torch.randn(tensor.shape, generator=rng) * 0.3
    elif tensor.dim() == 1:
        values = 1 + 0.2 * torch.randn(tensor.shape, generator=rng)
    elif "embed_tokens" in name:
        values = torch.randn(tensor.shape, generator=rng)
    else:
        values = torch.randn(tensor.shape, generator=rng) * tensor.shape[-1] ** -0.5
    return values.bfloat16().float()


def signs(count, k):
    """+1 or -1 for element i of projection k: the top bit of SplitMix64's mixing of 4 i + k + 1."""
    with np.errstate(over="ignore"):
        x = (np.arange(count, dtype=np.uint64) * np.uint64(4) + np.uint64(k + 1)) \
            * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return np.where(x >> np.uint64(63), 1.0, -1.0)


def per_tensor(named, model_type, experts_inner):
    """transformers keeps the experts in one tensor; files have one tensor an expert."""
    at, words = ("block_sparse_moe", ("w1", "w3", "w2")) if model_type == "mixtral" else \
        ("mlp", ("gate_proj", "up_proj", "down_proj"))
    for name, value in named:
        if model_type == "mixtral":
            name = name.replace(".mlp.gate.", ".block_sparse_moe.gate.")
        prefix = name.split(".mlp.experts.")[0]
        if name.endswith("mlp.experts.gate_up_proj"):
            for e in range(value.shape[0]):
                yield f"{prefix}.{at}.experts.{e}.{words[0]}.weight", value[e][:experts_inner]
                yield f"{prefix}.{at}.experts.{e}.{words[1]}.weight", value[e][experts_inner:]
        elif name.endswith("mlp.experts.down_proj"):
            for e in range(value.shape[0]):
                yield f"{prefix}.{at}.experts.{e}.{words[2]}.weight", value[e]
        else:
            yield name, value


def main_loss(model, ids):
    logits = model(ids, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, VOCABULARY), ids[:, 1:].reshape(-1))


def next_token_loss(logits, ids, by):
    """The sum over the positions that have a token `by` places later."""
    logits = logits[:, :ids.shape[1] - by]
    return torch.nn.functional.cross_entropy(
        logits.reshape(-1, VOCABULARY), ids[:, by:].reshape(-1), reduction="sum")


def judge_of_modules(model, ids):
    """Losses of the main model and of each module, by transformers' MtpModel on the model's own
    folder; greedy tokens that module k and the main model k positions later have in common."""
    modules = MtpModel.from_pretrained(model).train(False)
    positions = torch.arange(ids.shape[1])[None]
    h = model.model(ids, use_cache=False).last_hidden_state
    main = model.lm_head(h)
    losses, agreed = [next_token_loss(main, ids, 1)], []
    for k in range(len(modules.layers)):
        end = ids[:, -1:].expand(-1, k + 1)  # without a label
        later = torch.cat([ids[:, k + 1:], end], 1)
        h = modules.forward_layer(k, h, positions, None, input_ids=later)
        logits = modules._project_to_logits(h)
        losses.append(next_token_loss(logits, ids, k + 2))
        length = ids.shape[1] - k - 2
        same = logits[:, :length].argmax(-1) == main[:, k + 1:k + 1 + length].argmax(-1)
        agreed.append(int(same.sum()))
    return modules, losses, agreed


def names_in_files(model, modules):
    yield from model.named_parameters()
    first = model.config.num_hidden_layers
    for name, p in modules.named_parameters():
        if not name.startswith("layers."):
            continue  # embedding and head are the model's
        _, k, rest = name.split(".", 2)
        rest = rest.removeprefix("mtp_block.").replace("post_norm.", "shared_head.norm.")
        yield f"model.layers.{first + int(k)}.{rest}", p


def gradients_with_modules(folder, ids):
    layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    # transformers knows the modules of models of 61 layers; here they come sooner.
    DeepseekV3ForCausalLM._keys_to_ignore_on_load_unexpected = [
        rf"model\.layers\.{layers + k}.*" for k in range(8)]
    model, facts = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager", experts_implementation="eager",
        output_loading_info=True)
    assert not facts["missing_keys"] and not facts["unexpected_keys"], facts
    modules, losses, agreed = judge_of_modules(model, ids)
    count = ids.shape[0] * (ids.shape[1] - 1)  # of the main labels, for all
    (losses[0] / count + 0.3 / len(agreed) * sum(losses[1:]) / count).backward()
    write_facts(folder, {"loss": losses[0].item() / count,
                         "module_loss_sums": [loss.item() for loss in losses[1:]],
                         "module_agreed": agreed}, names_in_files(model, modules), model.config)


def write_gradients(folder, model, ids, config):
    model = model.double()
    model.zero_grad()
    loss = main_loss(model, ids)
    loss.backward()
    write_facts(folder, {"loss": loss.item()}, model.named_parameters(), config)


def write_facts(folder, losses, parameters, config):
    inner = getattr(config, "moe_intermediate_size", None) or config.intermediate_size
    named = [(n, p.grad if p.grad is not None else torch.zeros_like(p)) for n, p in parameters]
    facts = {}
    for name, gradient in per_tensor(named, config.model_type, inner):
        flat = gradient.detach().numpy().astype(np.float64).reshape(-1)
        facts[name] = [float(np.linalg.norm(flat))] + \
            [float(flat @ signs(flat.size, k)) for k in range(4)]
    text = json.dumps({**losses, "gradients": facts})
    (folder / "gradients.json").write_text(text.replace("], ", "],\n") + "\n")


def words_of_version_4(config):
    """The same config as older files have it."""
    parameters = config.pop("rope_parameters")
    config["rope_theta"] = parameters.pop("rope_theta")
    kind = parameters.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else {"type": kind, **parameters}
    config["torch_dtype"] = config.pop("dtype")
    if config["model_type"] == "qwen3_moe":
        config["num_experts"] = config.pop("num_local_experts")
    for key in ("layer_types", "pad_token_id", "qk_head_dim", "output_router_logits"):
        config.pop(key, None)
    return config


def quantise(tensors, config, scale_type):
    """The matrices as E4M3 codes and scales of blocks; returns what they stand for too."""
    config["quantization_config"] = {"activation_scheme": "dynamic", "fmt": "e4m3",
                                     "quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]}
    stored, values = {}, {}
    for name, tensor in tensors.items():
        plain = "_proj" not in name or "eh_proj" in name
        if plain:
            stored[name] = values[name] = tensor
            continue
        rows, columns = tensor.shape
        scales = torch.empty(-(-rows // BLOCK), -(-columns // BLOCK))
        codes = torch.empty(rows, columns, dtype=torch.float8_e4m3fn)
        value = torch.empty(rows, columns)
        for i in range(scales.shape[0]):
            for j in range(scales.shape[1]):
                at = (slice(i * BLOCK, (i + 1) * BLOCK), slice(j * BLOCK, (j + 1) * BLOCK))
                scale = tensor[at].float().abs().max() / 448
                scales[i, j] = scale.to(scale_type).float()
                codes[at] = (tensor[at].float() / scales[i, j]).to(torch.float8_e4m3fn)
                value[at] = codes[at].float() * scales[i, j]
        stored[name], values[name] = codes, value
        stored[name + "_scale_inv"] = scales.to(scale_type)
    return stored, values


def mtp_tensors(tensors, layers, number, hidden, rng):
    """A prediction module: norms, projection, copies of embedding and head, and a last block."""
    extra = {}
    at = f"model.layers.{layers + number}."
    for name, tensor in tensors.items():
        last = f"model.layers.{layers - 1}."
        if name.startswith(last):
            extra[at + name[len(last):]] = random_values(name, tensor, rng).to(tensor.dtype)
    for name in ("enorm", "hnorm", "shared_head.norm"):
        extra[at + name + ".weight"] = (1 + 0.2 * torch.randn(hidden, generator=rng)).bfloat16()
    extra[at + "eh_proj.weight"] = \
        (torch.randn(hidden, 2 * hidden, generator=rng) * (2 * hidden) ** -0.5).bfloat16()
    extra[at + "embed_tokens.weight"] = tensors["model.embed_tokens.weight"].clone()
    extra[at + "shared_head.head.weight"] = tensors["lm_head.weight"].clone()
    return extra


def save(folder, tensors, options):
    meta = {"format": "pt"}
    if "shards" not in options:
        save_file(tensors, folder / "model.safetensors", metadata=meta)
        return
    names = sorted(tensors)
    half = len(names) // 2
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": {}}
    for number, part in enumerate((names[:half], names[half:]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({n: tensors[n] for n in part}, folder / file, metadata=meta)
        index["weight_map"].update({n: file for n in part})
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def make(root, number, name):
    kind, settings, options = CASES[name]
    folder = root / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = torch.Generator().manual_seed(1000 + number)
    config = AutoConfig.for_model(kind, **settings)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary)
        tensors = load_file(f"{temporary}/model.safetensors")
        text = json.loads(pathlib.Path(temporary, "config.json").read_text())
    tensors = {n: random_values(n, t, rng) for n, t in sorted(tensors.items())}
    tensors = {n: t if n.endswith("correction_bias") else t.bfloat16() for n, t in tensors.items()}
    text["dtype"] = "bfloat16"
    values, stored = tensors, tensors
    if "fp8" in options:
        stored, values = quantise(
            tensors, text, torch.bfloat16 if "bf16_scales" in options else torch.float32)
    for k in range(settings["num_nextn_predict_layers"] if "mtp" in options else 0):
        stored = {**stored, **mtp_tensors(tensors, config.num_hidden_layers, k, config.hidden_size,
                                          rng)}
    text = words_of_version_4(text) if "words4" in options else text
    (folder / "config.json").write_text(json.dumps(text, indent=1) + "\n")
    save(folder, stored, options)
    # The judge reads the values from a folder of its own where ours holds more or FP8.
    with tempfile.TemporaryDirectory() as temporary:
        plain = {k: v for k, v in text.items() if k != "quantization_config"}
        pathlib.Path(temporary, "config.json").write_text(json.dumps(plain))
        save_file({n: t.float() for n, t in values.items()}, f"{temporary}/model.safetensors",
                  metadata={"format": "pt"})
        model, facts = AutoModelForCausalLM.from_pretrained(
            temporary, dtype=torch.float32, attn_implementation="eager",
            experts_implementation="eager", output_loading_info=True)
    assert not facts["missing_keys"] and not facts["unexpected_keys"], facts
    ids = torch.randint(VOCABULARY, (2, LENGTH), generator=rng)
    with torch.no_grad():
        logits = model(ids, use_cache=False).logits
    save_file({"ids": ids.int(), "logits": logits.contiguous()}, folder / "golden.safetensors")
    if "gradients" in options:
        write_gradients(folder, model, ids, config)
    if "mtp" in options:
        gradients_with_modules(folder, ids)
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{name}: {size} bytes, logits' deviation {logits.std():.3f}")


def main():
    root = pathlib.Path(sys.argv[1])
    wanted = sys.argv[2:] or list(CASES)
    for number, name in enumerate(CASES):
        if name in wanted:
            make(root, number, name)


main()
