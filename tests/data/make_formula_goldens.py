"""Writes tests/data/balance_loss.txt: the balance loss of transformers' Mixtral (Qwen3-MoE has the
same) and its gradient, of one layer, in float64; and tests/data/sampling.txt: the probabilities that
transformers' generation draws from, under penalty, temperature and cuts together.

Run with a Python that has torch and transformers; the tests read the files, they never run this.
"""
import pathlib

import torch
from transformers.generation import logits_process as lp
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

FOLDER = pathlib.Path(__file__).parent


def line(tensor):
    return " ".join(repr(x) for x in tensor.flatten().tolist())


def balance():
    """Lines: "tokens experts chosen loss", the logits, the gradient."""
    torch.manual_seed(3)
    lines = []
    for tokens, experts, chosen, spread in [(7, 4, 1, 1.0), (40, 8, 2, 1.0), (33, 6, 3, 3.0),
                                            (64, 16, 4, 0.1), (5, 5, 5, 1.0)]:
        # An uneven router: some experts are wanted more.
        logits = spread * torch.randn(tokens, experts) + torch.linspace(0, 2, experts)
        logits = logits.float().double().requires_grad_()
        loss = load_balancing_loss_func((logits,), experts, chosen)
        loss.backward()
        lines += [f"{tokens} {experts} {chosen} {loss.item()!r}", line(logits.data),
                  line(logits.grad)]
    (FOLDER / "balance_loss.txt").write_text("\n".join(lines) + "\n")


def sampling():
    """Lines: "penalty temperature top_k top_p min_p", the tokens so far, the logits, the result."""
    torch.manual_seed(5)
    lines = []
    options = [(1.0, 0.7, 0, 1.0, 0.0), (1.3, 0.7, 0, 1.0, 0.0), (1.0, 1.0, 5, 0.8, 0.0),
               (1.2, 0.9, 8, 0.9, 0.0), (1.0, 1.3, 0, 0.7, 0.1), (1.5, 0.8, 10, 0.95, 0.05),
               (0.8, 1.0, 4, 0.99, 0.2), (2.0, 2.0, 0, 0.5, 0.0), (1.1, 0.6, 6, 0.6, 0.3)]
    for penalty, temperature, top_k, top_p, min_p in options:
        logits = 2 * torch.randn(1, 16)
        seen = torch.randint(0, 16, (1, 6))
        # In the order in which generation runs them.
        chain = [lp.RepetitionPenaltyLogitsProcessor(penalty),
                 lp.TemperatureLogitsWarper(temperature)]
        if top_k:
            chain.append(lp.TopKLogitsWarper(top_k))
        if top_p < 1:
            chain.append(lp.TopPLogitsWarper(top_p))
        if min_p:
            chain.append(lp.MinPLogitsWarper(min_p))
        out = logits
        for step in chain:
            out = step(seen, out)
        lines += [f"{penalty} {temperature} {top_k} {top_p} {min_p}", line(seen), line(logits),
                  line(torch.softmax(out, -1))]
    (FOLDER / "sampling.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    balance()
    sampling()
