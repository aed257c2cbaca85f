"""Writes safetensors_*.safetensors with the format's reference library (safetensors 0.8, torch).

Usage: make_safetensors_goldens.py FOLDER
"""
import sys

import torch
from safetensors.torch import save_file

TYPES = {
    "f64": torch.float64, "i64": torch.int64, "f32": torch.float32, "i32": torch.int32,
    "bf16": torch.bfloat16, "f16": torch.float16, "i16": torch.int16, "u8": torch.uint8,
    "i8": torch.int8, "f8e4m3": torch.float8_e4m3fn, "f8e5m2": torch.float8_e5m2,
}


def main():
    folder = sys.argv[1]
    tensors = {}
    for name, dtype in TYPES.items():
        values = torch.arange(15, dtype=torch.float32) - 7
        tensors[f"z.{name}"] = values.reshape(3, 5).to(torch.uint8 if dtype == torch.uint8 else dtype) \
            if dtype != torch.uint8 else torch.arange(15, dtype=torch.uint8).reshape(3, 5)
    tensors["scalar"] = torch.tensor(-2.5)
    tensors["empty"] = torch.zeros(0, 4)
    tensors['quote " and ü'] = torch.tensor([1.5, -0.0])
    save_file(tensors, f"{folder}/safetensors_types.safetensors", metadata={"format": "pt"})
    save_file({"flag": torch.tensor([True, False, True])},
              f"{folder}/safetensors_bool.safetensors")


main()
