"""Writes tests/data/optim_adamw.txt: 20 steps of torch.optim.AdamW in float64.

Run with a Python that has torch; the tests read the file, they never run this script.
Lines: "lr beta1 beta2 epsilon weight_decay steps elements", then per step the gradients and the
parameters after it; the first line of numbers holds the parameters at the start.
"""
import pathlib

import torch

LR, BETAS, EPSILON, DECAY, STEPS, ELEMENTS = 3e-3, (0.9, 0.95), 1e-8, 0.1, 20, 24


def line(tensor):
    return " ".join(repr(x) for x in tensor.tolist())


def main():
    torch.manual_seed(20)
    # Values that f32 holds exactly, so that both precisions start from the same numbers.
    weight = torch.nn.Parameter(torch.randn(ELEMENTS).double())
    optimizer = torch.optim.AdamW([weight], lr=LR, betas=BETAS, eps=EPSILON, weight_decay=DECAY)
    lines = [f"{LR} {BETAS[0]} {BETAS[1]} {EPSILON} {DECAY} {STEPS} {ELEMENTS}", line(weight.data)]
    for step in range(STEPS):
        scale = 10.0 ** torch.randint(-4, 3, (ELEMENTS,))
        weight.grad = (torch.randn(ELEMENTS) * scale).float().double()
        optimizer.step()
        lines += [line(weight.grad), line(weight.data)]
    path = pathlib.Path(__file__).with_name("optim_adamw.txt")
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
