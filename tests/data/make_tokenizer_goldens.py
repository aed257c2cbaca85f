#!/usr/bin/env python3
"""Writes tests/data/tokenizer/: small tokenizers of each kind with texts and the ids that the
`tokenizers` library gives them, and what its trainer makes of a small corpus.

    python -m venv scratch && scratch/bin/pip install tokenizers==0.23.3
    scratch/bin/python tests/data/make_tokenizer_goldens.py

Files:
  KIND.json          a tokenizer.json of about 1,000 tokens
  KIND.ids.jsonl     one [text, ids] a line
  trained_*.json     what the library's trainer wrote for corpus.txt (one document a line)
  nfc.txt            code points whose form NFC differs from themselves: `hex hex hex...` a line
"""

import json
import pathlib
import random
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import processors, trainers

HERE = pathlib.Path(__file__).resolve().parent / "tokenizer"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
# As in the published file: the line ends stand as characters, not as escapes.
DEEPSEEK = ["\\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+",
            "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
            "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"]
OTHER = r"\p{Lu}?\p{Ll}+|\p{N}|[^\S\r\n]+|[\p{P}\p{S}]+(?=\s|$)"

SAMPLES = [
    "", " ", "\n", "a", "The quick brown fox jumps over the lazy dog.", "  two  blanks   three\t\ttabs",
    "I'm he's we'll they'd you've isn't DON'T I'M IT'S WE'LL 'sun 'tis 'ſ o'clock ''s '",
    "Zahlen 1 12 123 1234 12345 1,234,567.89 ½ Ⅷ ٣٤٥ ১২৩ 一二三 ²³ ①②③",
    "line\nline\r\nline\n\n\nline \n \n x\r\r\n\n   indented\n\tif (x == 1) {\n\t\treturn y;  // no\n\t}\n",
    "Größe, façade, naïve, coöperate, Ångström, œuvre; ¿Qué tal? ¡Olé! Łódź żółć ığüşöç",
    "Быть или не быть, вот в чём вопрос. Їжак ґанок Ўрад", "Ἐν ἀρχῇ ἦν ὁ λόγος· καὶ ὁ λόγος",
    "בְּרֵאשִׁית בָּרָא אֱלֹהִים", "بِسْمِ اللَّهِ الرَّحْمَٰنِ الرَّحِيمِ ۱۲۳", "नमस्ते दुनिया, हिन्दी में १२३ लिखें।",
    "আমি বাংলায় গান গাই", "தமிழ் எழுத்து", "ภาษาไทยไม่มีช่องว่างระหว่างคำ", "မြန်မာဘာသာ", "ខ្ញុំនិយាយភាសាខ្មែរ",
    "日本語の文章です。カタカナとひらがな、漢字100文字。", "你好，世界！这是一个测试：中文分词。３２１", "한국어 문장입니다. 각 낱말",
    "한국어 각", "ქართული ენა", "Հայերեն լեզու", "አማርኛ ቋንቋ", "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ", "ᚠᛇᚻ᛫ᛒᛦᚦ᛫ᚠᚱᚩᚠᚢᚱ",
    "😀😃 👨‍👩‍👧‍👦 🇩🇪🇫🇷 👍🏽 ❤️ ✔︎ 🏴󠁧󠁢󠁳󠁣󠁴󠁿", "é é e\u0301\u0302 q\u0307\u0323 Å Å ﬁ Ω ſt ẛ̣",
    "\u00a0nbsp\u2003em\u3000ideographic\u200bzero\u200c\u200d\u2060\ufeff\u180e\u0085\u2028\u2029x\u0000\u0001\x1c\x7f",
    "https://example.org/a?b=c&d=%20#e user@host.tld C:\\path\\file.txt #tag @name $x_1 `code` **b** ~~s~~",
    "def f(x):\n    return [i for i in range(10) if i % 2 == 0]  # comment\n\n\nclass A:\n    pass\n",
    "<|endoftext|>a<|endoftext|> b <|endoftext|><|endoftext|>\n", "<|endoftext| > <|endof text|> <|im_start|>user\n<|im_end|>",
    "x [MASK] y[MASK]z  [MASK]\n word wordy word, sword 'word'", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" * 8,
    "=" * 200 + "\n" + "-" * 77, " " * 90 + "x" + "\n" * 40 + " \t" * 30, "الله\u0640\u0651\u064e", "\U0001E900\U0001E943 \U00010400\U00010428 \U0001F1E6",
    "aͣ\u034f\u0301 \u0345\u0301\u0300 \u1100\u1161\u11a8 \uac00\u11a8 \u09c7\u09be \u0b47\u0b56", "\U00011131\U00011127 \U000114B9\U000114BA \u0344 \u2126 \u212b",
]

RANGES = [(0x20, 0x7E), (0x20, 0x7E), (0x20, 0x7E), (0xA0, 0x17F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x52F),
          (0x590, 0x6FF), (0x900, 0xDFF), (0xE00, 0xFFF), (0x1000, 0x11FF), (0x1E00, 0x1FFF), (0x2000, 0x20FF),
          (0x2100, 0x27FF), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7FB), (0xF900, 0xFFFD),
          (0x10000, 0x1FFFF), (0x20000, 0x2FA1F), (0xE0000, 0xE01EF), (0x0, 0x10FFFF)]
PIECES = ["'s", "'LL", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u2028", "\u3000", "1", "12", "the", " and", "A", ".", "ß", "<|endoftext|>",
          "[MASK]", "word", "é", "éa", "e\u0301a", "e\u0301", "\u0301", "中", "の", "ー", "\u30fb", "\u3099"]


# Combining characters of all ages: how they are ordered and joined depends on the library's Unicode.
MARKS = [chr(c) for c in range(0x110000) if unicodedata.combining(chr(c))]


def fuzz(count, seed):
    rng = random.Random(seed)
    out = []
    for _ in range(count):
        parts = []
        for _ in range(rng.randrange(1, 25)):
            if rng.random() < 0.5:
                parts.append(rng.choice(PIECES))
            elif rng.random() < 0.1:
                parts.append("".join(rng.choice(MARKS) for _ in range(rng.randrange(1, 5))))
            else:
                low, high = rng.choice(RANGES)
                code = rng.randint(low, high)
                if 0xD800 <= code <= 0xDFFF:
                    continue
                parts.append(chr(code) * (rng.randrange(1, 5) if rng.random() < 0.1 else 1))
        out.append("".join(parts))
    return out


def corpus():
    """About 130 kB of text with the samples' letters: repeated, cut and recombined words."""
    rng = random.Random(7)
    words = " ".join(SAMPLES).split(" ")
    words += "the of and to in that is was he for it with as his on be at by had not are but from".split() * 4
    return [" ".join(rng.choice(words) for _ in range(rng.randrange(5, 60))) for _ in range(400)]


def byte_level(steps):
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(s), "isolated") if isinstance(s, str) else s for s in steps]
        + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def trained(pre_tokenizer, size, special=(), normalizer=None, texts=None, **options):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(special), show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **options)
    tokenizer.train_from_iterator(texts or corpus(), trainer)
    return tokenizer


def special(content, **flags):
    return AddedToken(content, normalized=flags.pop("normalized", False), special=flags.pop("special", True), **flags)


def kinds():
    tokenizer = trained(pre_tokenizers.ByteLevel(add_prefix_space=False), 1000)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    yield "gpt2", tokenizer, "legacy"

    tokenizer = trained(byte_level([LLAMA3]), 1000)
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", tokenizer.token_to_id("<|begin_of_text|>"))])
    yield "llama3", tokenizer, "ignore_merges"

    tokenizer = trained(byte_level([QWEN2]), 1000, normalizer=normalizers.NFC())
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    yield "qwen2", tokenizer, ""

    tokenizer = trained(byte_level(DEEPSEEK), 1000, ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"])
    tokenizer.add_special_tokens([f"<｜place▁holder▁no▁{i}｜>" for i in range(12)])
    tokenizer.add_tokens([special("<think>", special=False), special("</think>", special=False)])
    yield "deepseek", tokenizer, ""

    # Everything the formats allow around added tokens, digits and a pattern of no published kind.
    tokenizer = trained(byte_level([OTHER, pre_tokenizers.Digits(individual_digits=False)]), 900, normalizer=normalizers.NFC())
    tokenizer.add_special_tokens([special("<|endoftext|>"), special("<|endoftext|>a"), special("[MASK]", lstrip=True),
                                  special("<|im_start|>", rstrip=True), special("éa", normalized=True)])
    tokenizer.add_tokens([special("word", single_word=True, special=False, normalized=True),
                          special(" and", special=False), special("q\u0307\u0323", special=False, normalized=True)])
    yield "added", tokenizer, ""

    tokenizer = trained(byte_level([pre_tokenizers.Digits(individual_digits=True), GPT2]), 700)
    yield "digits", tokenizer, ""


def write_kind(name, tokenizer, how):
    root = json.loads(tokenizer.to_str())
    if how == "legacy":
        root["model"]["merges"] = [" ".join(pair) for pair in root["model"]["merges"]]
    if how == "ignore_merges":
        # Drop merges so that some tokens are reachable only as whole pieces.
        root["model"]["ignore_merges"] = True
        root["model"]["merges"] = [m for i, m in enumerate(root["model"]["merges"]) if i % 7 != 6]
    text = json.dumps(root, ensure_ascii=False, separators=(",", ":"))
    (HERE / f"{name}.json").write_text(text)
    tokenizer = Tokenizer.from_str(text)
    with open(HERE / f"{name}.ids.jsonl", "w") as out:
        for sample in SAMPLES + fuzz(500, name):
            ids = tokenizer.encode(sample, add_special_tokens=False).ids
            out.write(json.dumps([sample, ids], ensure_ascii=True, separators=(",", ":")) + "\n")


def write_nfc():
    with open(HERE / "nfc.txt", "w") as out:
        nfc = normalizers.NFC()
        for code in range(0x110000):
            if 0xD800 <= code <= 0xDFFF or 0xAC00 <= code <= 0xD7A3:
                continue
            result = nfc.normalize_str(chr(code))
            if result != chr(code):
                out.write(f"{code:X} " + " ".join(f"{ord(c):X}" for c in result) + "\n")


def main():
    HERE.mkdir(exist_ok=True)
    for kind in kinds():
        write_kind(*kind)
    texts = corpus()
    texts = [t.replace("\n", " ") for t in texts[:250]]
    (HERE / "corpus.txt").write_bytes("\n".join(texts).encode())
    for name, pre_tokenizer in (("gpt2", pre_tokenizers.ByteLevel(add_prefix_space=False)), ("llama3", byte_level([LLAMA3]))):
        trained(pre_tokenizer, 1200, ["<|endoftext|>"], texts=texts).save(str(HERE / f"trained_{name}.json"), pretty=False)
    write_nfc()


if __name__ == "__main__":
    main()
