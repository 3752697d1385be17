#!/usr/bin/env python3
"""Writes tests/data/tokenizer/variants.jsonl: small changes of tokenizer_gpt2.json, texts, and the
ids that Hugging Face `tokenizers` gives for them (0.23.3 made the committed file).

    python3 -m venv v && v/bin/pip install tokenizers==0.23.3
    v/bin/python tools/make_tokenizer_variants.py

A line holds the members that replace those of the base file, and cases [text, mode, ids]. Left out
are cases in which the reference itself panics, tokens that normalise to nothing (it then cuts
between all characters) and tokens that normalise to the same text (it then takes either).
"""
import copy
import json
import random

from tokenizers import Tokenizer

BASE = "tests/golden/text/tokenizer_gpt2.json"
OUT = "tests/data/tokenizer/variants.jsonl"
R = random.Random(20)
PATTERNS = [
    r"\s+", r"\p{N}{1,3}", r"\w+", r"[^\s]+", r"[\s\S]", r"\d", r" ?\p{L}+|\p{N}", r"[\w-]+",
    r"(?i:'[stmd]|'re)|\p{L}+", r"[^\w\s]", r"\S+", r"\S+$", r"^\w", r"\D+", r"\W+", r"\p{Han}+",
    r"\p{Lu}\p{Ll}+", r"[\p{P}\p{S}]+", r"(?<=a)b|(?<!\s)\n", r"[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}",
    r".+", r"[a\-z]+", r"\t|\v|\f", r"\x20+", r"\A.", r"(?:ab)+", r"\p{^L}+", r"[\P{L}]+", r"[\D]+",
    r"[\S]{2,}", r"\p{Greek}+", r"\p{Common}+", r"\p{Letter}", r"\u4e2d|\x{6587}", r"(a|b)+?c",
]
EMPTY = [r"a*", r"x?", r""]  # match nothing too; only for splits
BEHAVIORS = ["Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext"]
ADDED = ["  ", " ", "a", "ab", "É", "<x>", "<x><y>", "\n", "aa", "\t\t", "ê", "ﬁ", "İ", "Hello",
         "the", "中", "ing", "▁", " a", "b ", "_", "'s", "\u00a0", "0", "123"]
ATOMS = [" ", "  ", "\n", "\r\n", "\t", "a", "b", "ab", "A", "é", "e\u0301", "É", "ß", "ſ", "K", "İ",
         "中", "文", "。", "\u3000", "1", "23", "4567", "½", "Ⅷ", "٣", "'s", "'S", "'ſ", ".", "!", "_",
         "-", "<x>", "<x><y>", "<x", "Hello", "the", "ing", "world", "\u200d", "\u200b", "\u180e",
         "\u00a0", "\u0085", "\x1c", "😀", "👍🏽", "ﬁ", "ﷺ", "각", "ᄀ", "ᅡ", "ᆨ", "\u0316", "\u0301",
         "\u0334", "\u0898", "\u08d3", "\u1dfa", "Ａ", "①", "Ω", "\u0345", "Σ", "ब", "ि", "aa", "\v",
         "\u2028", "\x7f", "\xad", "<|endoftext|>", "\U00011935", "\U00011930", "\ue000", "𝐀"]


def normalizer():
    kind = R.choice(["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "Replace", "Text", "Prepend"])
    if kind == "Strip":
        return {"type": kind, "strip_left": R.random() < .5, "strip_right": R.random() < .5}
    if kind == "Replace":
        return {"type": kind, "pattern": {"Regex": R.choice(PATTERNS)}, "content": R.choice(["", "_", "é"])}
    if kind == "Text":
        return {"type": "Replace", "pattern": {"String": R.choice([" ", "a", ".", "é", "  "])},
                "content": R.choice(["", "▁", " "])}
    if kind == "Prepend":
        return {"type": kind, "prepend": R.choice(["▁", " ", "a"])}
    return {"type": kind}


def pre_tokenizer():
    kind = R.choice(["Split", "Split", "Split", "Text", "Digits", "Punctuation"])
    behavior, invert = R.choice(BEHAVIORS), R.random() < .3
    if kind == "Split":
        pattern = {"Regex": R.choice(PATTERNS + EMPTY)}
        return {"type": kind, "pattern": pattern, "behavior": behavior, "invert": invert}
    if kind == "Text":
        pattern = {"String": R.choice([" ", "a", ".", "ab", ""])}
        return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}
    if kind == "Digits":
        return {"type": kind, "individual_digits": R.random() < .5}
    return {"type": kind, "behavior": behavior}


def variant(base):
    change = {}
    if R.random() < .6:
        n = R.randint(1, 3)
        many = [normalizer() for _ in range(n)]
        change["normalizer"] = many[0] if n == 1 else {"type": "Sequence", "normalizers": many}
    if R.random() < .7:
        many = [pre_tokenizer() for _ in range(R.randint(0, 3))]
        level = {"type": "ByteLevel", "add_prefix_space": R.random() < .4, "trim_offsets": True,
                 "use_regex": R.random() < .4}
        many.insert(R.choice([len(many)] * 4 + [R.randint(0, len(many))]), level)
        change["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": many}
    if R.random() < .7:
        vocab, tokens = base["model"]["vocab"], copy.deepcopy(base["added_tokens"])
        next_id = 1 + max(max(vocab.values()), max(t["id"] for t in tokens))
        for content in R.sample(ADDED, R.randint(1, 6)):
            flags = {k: R.random() < p for k, p in
                     (("single_word", .25), ("lstrip", .25), ("rstrip", .25), ("normalized", .5), ("special", .4))}
            tokens.append({"id": vocab.get(content, next_id), "content": content, **flags})
            next_id += content not in vocab
        change["added_tokens"] = tokens
    return change


def main():
    with open(BASE) as file:
        base = json.load(file)
    lines = 0
    with open(OUT, "w") as out:
        while lines < 250:
            change = variant(base)
            reference = Tokenizer.from_str(json.dumps({**base, **change}))
            norm = reference.normalizer
            tokens = change.get("added_tokens", base["added_tokens"])
            found = [norm.normalize_str(t["content"]) if norm else t["content"] for t in tokens if t["normalized"]]
            if "" in found or len(set(found)) < len(found):
                continue
            cases = []
            for mode in ["all", "all", "all", "all", "no_special", "all", "no_special", "all"]:
                text = "".join(R.choice(ATOMS) * R.choice([1, 1, 1, 2, 4]) for _ in range(R.randint(1, 20)))
                reference.encode_special_tokens = mode == "no_special"
                try:
                    cases.append([text, mode, reference.encode(text, add_special_tokens=False).ids])
                except BaseException as panic:  # its own bugs: pieces that overlap, lost alignments
                    if type(panic).__name__ != "PanicException":
                        raise
            if cases:
                out.write(json.dumps({"n": lines, "change": change, "cases": cases}, separators=(",", ":")) + "\n")
                lines += 1


main()
