#!/usr/bin/env python3
"""Decoding with transformers, measured: a random model of the shape that a config of bench_decode
names reads a prompt and then writes greedily, as fast as the library goes: the model is called
directly, with its key-value cache, without generate()'s extra work. Prints one line of JSON.

  transformers_decode.py --config llama.toml --dtype bf16 --tokens 64
"""
import argparse
import json
import statistics
import time
import tomllib

import torch
import transformers


def llama(m):
    config = transformers.LlamaConfig(
        vocab_size=m["vocabulary"], hidden_size=m["hidden"], intermediate_size=m["ffn"],
        num_hidden_layers=m["layers"], num_attention_heads=m["heads"],
        num_key_value_heads=m["kv_heads"], max_position_embeddings=m["max_positions"],
        tie_word_embeddings=m.get("tied_embeddings", False))
    return transformers.LlamaForCausalLM(config)


def deepseek(m):
    a, e = m["mla"], m["moe"]
    config = transformers.DeepseekV3Config(
        vocab_size=m["vocabulary"], hidden_size=m["hidden"], intermediate_size=m["ffn"],
        num_hidden_layers=m["layers"], num_attention_heads=m["heads"],
        num_key_value_heads=m["heads"], max_position_embeddings=m["max_positions"],
        kv_lora_rank=a["kv_latent"], q_lora_rank=a["q_latent"] or None,
        qk_nope_head_dim=a["nope_dim"], qk_rope_head_dim=a["rope_dim"], v_head_dim=a["v_dim"],
        moe_intermediate_size=e["ffn"], n_routed_experts=e["experts"],
        num_experts_per_tok=e["chosen"], n_shared_experts=e["shared"], n_group=e["groups"],
        topk_group=e["groups_chosen"], routed_scaling_factor=e["scaling"],
        first_k_dense_replace=e["first_dense"], rope_scaling=None)
    return transformers.DeepseekV3ForCausalLM(config)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    for name, value in {"threads": 0, "sequences": 1, "prompt": 64, "tokens": 128}.items():
        parser.add_argument("--" + name, type=int, default=value)
    a = parser.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    with open(a.config, "rb") as file:
        sizes = tomllib.load(file)["model"]
    model = (deepseek if "mla" in sizes else llama)(sizes).eval()
    if a.dtype == "bf16":
        model = model.to(torch.bfloat16)
    ids = torch.randint(0, sizes["vocabulary"], (a.sequences, a.prompt))
    seconds = []
    with torch.inference_mode():
        start = time.perf_counter()
        out = model(input_ids=ids, use_cache=True)
        prefill = time.perf_counter() - start
        for _ in range(a.tokens):
            begin = time.perf_counter()
            ids = out.logits[:, -1:].argmax(-1)
            out = model(input_ids=ids, past_key_values=out.past_key_values, use_cache=True)
            seconds.append(time.perf_counter() - begin)
    print(json.dumps({
        "peer": f"transformers {transformers.__version__}, torch {torch.__version__}",
        "dtype": a.dtype, "parameters": sum(p.numel() for p in model.parameters()),
        "sequences": a.sequences, "prefill_seconds": prefill,
        "step_seconds_median": statistics.median(seconds),
        "tokens_per_second": a.sequences * a.tokens / sum(seconds)}))


if __name__ == "__main__":
    main()
