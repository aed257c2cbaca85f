#!/usr/bin/env python3
"""Writes tests/data/tokenizer/chars/: small SentencePiece-like tokenizers of each kind with texts
and what the `tokenizers` library makes of them.

    python -m venv scratch && scratch/bin/pip install tokenizers==0.23.3
    scratch/bin/python tests/data/make_char_tokenizer_goldens.py

Files:
  KIND.json          a tokenizer.json of 400 to 1,000 tokens
  KIND.ids.jsonl     a line a text: text, ids; decoded where it is not the text; as_text, the ids
                     with special tokens as text, where they differ
  long.json          number and checksum of the ids of texts of 1 MB (long_texts below)
"""

import json
import pathlib

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from make_tokenizer_goldens import SAMPLES, corpus, fuzz

HERE = pathlib.Path(__file__).resolve().parent / "tokenizer" / "chars"
MARK = "\u2581"
BYTES = [f"<0x{b:02X}>" for b in range(256)]
HOSTILE = [
    "  ", "   ", "\t", " \t ", "\n\n", " \n", " a", "  a", "a ", "a  ", "a  b   c    d", MARK, MARK + "a", f"a{MARK}b {MARK} c", "\r\n \r\n",
    "<s>", "<s>a", "<s> a", " <s> a", "a<s>b</s> c", "<s><s>  </s>", "<unk>", "a<unk>b", "<0x0A>", "a <0xE4>b", "<0xE4><0xB8>", "\x00\x01", "\x7f",
    "[INST] Hi [/INST] there[INST]", "<n>a<n> b <n>c  <n>  d\n<n>\ne", "a <l>b  <l> c\n<l>", "a<r> b <r>  c<r>\n\nd", "x yz x y x  y", "word wordy word, a word",
    "\U0001F999 \U0001F999\U0001F999", "e\u0301a\u0301 q\u0307\u0323", "\U00020000\U0002A6D6", "\ue000\uf8ff", "\ufffd\ufeff", "the the the", "the" * 60,
    " the" * 60, "the " * 60, "\u00a0the\u00a0the", "the\u3000the", "1 2 3", "123456", "don't  can't", "<think>a</think> b", "<|user|>\nHi<|end|>\n<|assistant|>\n",
]


def special(content, **flags):
    return AddedToken(content, normalized=flags.pop("normalized", False), special=flags.pop("special", True), **flags)


def pieces(size, crossing):
    """Characters and merged pieces of a corpus, in the order in which a trainer makes them."""
    tokenizer = Tokenizer(models.BPE())
    texts = corpus()
    if crossing:  # one word a text: pieces may hold a blank anywhere
        tokenizer.normalizer = normalizers.Replace(" ", MARK)
        texts = [t[i:i + 60] for t in texts for i in range(0, len(t), 60)]
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, max_token_length=10, limit_alphabet=180)
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merged = ["".join(pair) for pair in model["merges"]]
    return [p for p in model["vocab"] if p not in merged], list(dict.fromkeys(merged))


def scoreless_merges(merged, known):
    """Every split of every piece into two pieces, in the order of the pieces: what converters make of scores."""
    return [(p[:i], p[i:]) for p in merged for i in range(len(p) - 1, 0, -1) if p[:i] in known and p[i:] in known]


def model_of(size, crossing=False, byte_tokens=tuple(BYTES), reserved=("<unk>", "<s>", "</s>"), **options):
    alphabet, merged = pieces(size, crossing)
    runs = [MARK * n for n in (2, 4, 3, 8)]
    merged = runs + [m for m in merged if m not in runs]
    vocab = {}
    for token in [*reserved, *byte_tokens, *merged, *alphabet]:
        vocab.setdefault(token, len(vocab))
    merges = scoreless_merges(merged, vocab)
    return models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", **{"fuse_unk": True, "byte_fallback": True, **options})


def decoder(strip=1):
    parts = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence(parts + [decoders.Strip(" ", strip, 0)] * (strip > 0))


def marking(prepend=True, first=()):
    parts = [*first] + [normalizers.Prepend(MARK)] * prepend + [normalizers.Replace(" ", MARK)]
    return normalizers.Sequence(parts)


def metaspace(scheme, split):
    return pre_tokenizers.Metaspace(replacement=MARK, prepend_scheme=scheme, split=split)


def begin_with(tokenizer, token):
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{token} $A", special_tokens=[(token, tokenizer.token_to_id(token))])


def all_flags(tokenizer):
    tokenizer.add_special_tokens([special("<l>", lstrip=True), special("<r>", rstrip=True), special("<|end|>", rstrip=True, normalized=True)])
    tokenizer.add_tokens([AddedToken("<n>", lstrip=True, rstrip=True), AddedToken("x y"), AddedToken("word", single_word=True),
                          AddedToken("<think>", normalized=False), AddedToken("q\u0307\u0323"), AddedToken("\t")])


def kinds():
    def start(model, normalizer=None, pre_tokenizer=None, strip=1, bos="<s>"):
        tokenizer = Tokenizer(model)
        if normalizer:
            tokenizer.normalizer = normalizer
        if pre_tokenizer:
            tokenizer.pre_tokenizer = pre_tokenizer
        tokenizer.decoder = decoder(strip)
        tokenizer.add_special_tokens([special(t) for t in ("<unk>", "<s>", "</s>")])
        begin_with(tokenizer, bos)
        return tokenizer

    yield "llama2", start(model_of(700), marking())

    inst = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", *[f"[control_{i}]" for i in range(8)])
    tokenizer = start(model_of(700, reserved=inst), None, metaspace("first", False))
    tokenizer.add_special_tokens([special(t) for t in inst])
    yield "mistral3", tokenizer

    tokenizer = start(model_of(600), marking(first=[normalizers.NFC()]))
    all_flags(tokenizer)
    yield "flags_prepend", tokenizer

    for scheme, split, crossing in (("always", True, False), ("first", False, True), ("never", False, True), ("never", True, False)):
        tokenizer = start(model_of(500, crossing=crossing), None, metaspace(scheme, split))
        all_flags(tokenizer)
        yield f"flags_{scheme}_{'split' if split else 'whole'}", tokenizer

    tokenizer = start(model_of(600, crossing=True), marking(False), pre_tokenizers.Split(" ", "merged_with_previous"), 0)
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in ("\n\n", "\t\t", MARK * 2, "<think>")])
    yield "gemma", tokenizer

    yield "unknown", start(model_of(400, byte_tokens=(), byte_fallback=False, ignore_merges=True), None, metaspace("first", False))
    some = [b for i, b in enumerate(BYTES) if i < 128 or i % 3]
    yield "some_bytes", start(model_of(450, byte_tokens=some, fuse_unk=False, crossing=True), marking())
    yield "whole_pieces", start(model_of(450, ignore_merges=True), None, metaspace("always", True))


def checksum(ids):
    total = 0
    for token in ids:
        total = (total * 31 + token) & (2**64 - 1)
    return [len(ids), str(total)]


def long_texts(samples):
    """All samples, again and again, to 1,000,000 characters; the same without blanks; blanks only."""
    whole = "".join(samples)
    dense = whole.replace(" ", "").replace(MARK, "")
    repeat = lambda text: (text * (1_000_000 // len(text) + 1))[:1_000_000]
    return {"mixed": repeat(whole), "dense": repeat(dense), "blanks": " " * 1_000_000}


def write_kind(name, tokenizer):
    root = json.loads(tokenizer.to_str())
    if name in ("llama2", "flags_always_split"):  # the older form
        root["model"]["merges"] = [" ".join(pair) for pair in root["model"]["merges"]]
    text = json.dumps(root, ensure_ascii=False, separators=(",", ":"))
    (HERE / f"{name}.json").write_text(text)
    tokenizer = Tokenizer.from_str(text)
    samples = SAMPLES + HOSTILE + fuzz(120, name)
    encode = lambda t: tokenizer.encode(t, add_special_tokens=False).ids
    with open(HERE / f"{name}.ids.jsonl", "w") as out:
        for sample in samples:
            line = {"text": sample, "ids": encode(sample)}
            decoded = tokenizer.decode(line["ids"], skip_special_tokens=False)
            if decoded != sample:
                line["decoded"] = decoded
            tokenizer.encode_special_tokens = True
            if encode(sample) != line["ids"]:
                line["as_text"] = encode(sample)
            tokenizer.encode_special_tokens = False
            out.write(json.dumps(line, ensure_ascii=True, separators=(",", ":")) + "\n")
    return {which: checksum(encode(t)) for which, t in long_texts(samples).items()}


def main():
    HERE.mkdir(parents=True, exist_ok=True)
    sums = {name: write_kind(name, tokenizer) for name, tokenizer in kinds()}
    (HERE / "long.json").write_text(json.dumps(sums, indent=0) + "\n")


if __name__ == "__main__":
    main()
