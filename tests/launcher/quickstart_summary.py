"""Checks the figures of a quickstart's summary.json; every one that is out of its range is named.

quickstart_summary.py SUMMARY
"""

import json
import sys


def number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def offences(summary):
    """What is wrong, one line each."""
    get = summary.get
    bits, xz = get("bits_per_byte"), get("xz_bits_per_byte")
    stall, trained = get("checkpoint_stall_seconds"), get("training_seconds_here")
    loss, unigram, uniform = (get(k) for k in ("validation_loss", "unigram_loss", "uniform_loss"))
    sample, following = get("sample"), get("next")
    share = stall / trained if number(stall) and number(trained) and trained > 0 else None
    letters = isinstance(sample, str) and sum(c.isalpha() or c == " " for c in sample)
    checks = [
        ("validation bits per byte below those of xz -6", (bits, xz),
         number(bits) and number(xz) and 0 < bits < xz),
        ("validation loss below a unigram's, that below a uniform one's",
         (loss, unigram, uniform),
         number(loss) and number(unigram) and number(uniform) and loss < unigram < uniform),
        ("share of the time that saving held training up below 0.02", (stall, trained, share),
         share is not None and 0 <= share < 0.02 and get("checkpoint_saves", 0) >= 2),
        ("sample of words", sample,
         isinstance(sample, str) and len(sample.split()) >= 20 and letters > 0.8 * len(sample)),
        ("tokens/s above 0", get("tokens_per_second"),
         number(get("tokens_per_second")) and get("tokens_per_second") > 0),
        ("MFU between 0 and 1.2", get("mfu"), number(get("mfu")) and 0 < get("mfu") < 1.2),
        ("cost above 0 at a price", (get("cost"), get("price_per_hour"), get("currency")),
         number(get("cost")) and get("cost") > 0 and get("price_per_hour", 0) > 0
         and bool(get("currency"))),
        ("run directory", get("run_directory"), bool(get("run_directory"))),
        ("next commands", following,
         isinstance(following, list) and any("generate --model" in c for c in following)),
    ]
    return [f"{name}: {figure}" for name, figure, met in checks if not met]


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        summary = json.load(file)
    wrong = offences(summary)
    for line in wrong:
        print(f"FAILED {sys.argv[1]}: wanted {line}")
    if not wrong:
        print(f"{summary['bits_per_byte']:.3f} bits per byte, xz {summary['xz_bits_per_byte']:.3f};"
              f" {summary['tokens_per_second']:.0f} tokens/s, MFU {summary['mfu']:.3f};"
              f" stall {summary['checkpoint_stall_seconds']:.3f} of"
              f" {summary['training_seconds_here']:.1f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
