"""Does quickstart_summary.py find each figure that is wrong?"""

import quickstart_summary

good = {
    "xz_bits_per_byte": 2.1, "bits_per_byte": 1.5, "validation_loss": 4.3, "unigram_loss": 6.4,
    "uniform_loss": 8.3, "tokens_per_second": 8161.4, "mfu": 0.68, "checkpoint_saves": 3,
    "checkpoint_stall_seconds": 0.13, "training_seconds_here": 60.5, "cost": 0.002,
    "price_per_hour": 0.1, "currency": "USD", "sample": "It was a truth that all of them knew. " * 5,
    "run_directory": "runs/quickstart", "next": ["shoestring generate --model runs/quickstart"],
}
bad = {
    "bits_per_byte": [2.2, None, 0], "xz_bits_per_byte": [1.4, None], "validation_loss": [6.5],
    "unigram_loss": [9, None], "tokens_per_second": [0, None], "mfu": [0, 1.3, None],
    "checkpoint_saves": [1], "checkpoint_stall_seconds": [1.3, None],
    "training_seconds_here": [0, None, 5], "cost": [0, None], "price_per_hour": [0],
    "currency": [""], "sample": [None, "", "It was", "\ufffd1 " * 50], "run_directory": [None],
    "next": [None, [], ["tests/run"]],
}
assert quickstart_summary.offences(good) == [], quickstart_summary.offences(good)
assert set(bad) | {"uniform_loss"} == set(good)
for key, values in bad.items():
    for value in values:
        wrong = quickstart_summary.offences({**good, key: value})
        assert len(wrong) == 1, (key, value, wrong)
    assert quickstart_summary.offences({k: v for k, v in good.items() if k != key}), key
