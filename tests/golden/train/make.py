#!/usr/bin/env python3
"""Makes the files of this folder with Hugging Face's `tokenizers` (written with 0.23.3); run it from
the project's root.

corpus.jsonl    {"text": ...}: prose and code of tests/golden, in parts, with texts of many scripts
merges.json     vocab and merges that BpeTrainer learns from it (vocab 1200, the family's
                pre-tokenizer and special tokens, whole byte alphabet)
cases.jsonl     {"text": ..., "ids": [...]}: 1,000 other texts as that tokenizer encodes them
"""
import json
import random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = "tests/golden/train/"
base = json.load(open("tests/golden/tiny-code/tokenizer.json"))
special = [t["content"] for t in base["added_tokens"]]
rng = random.Random(5)

code = open("tests/golden/tiny-code/heldout.txt", encoding="utf-8").read()
parts = [code[i:i + 2900] for i in range(0, len(code), 2900)]
texts = [json.loads(line).get("text", "") for line in open("tests/golden/text/cases.jsonl")]
texts = [t for t in dict.fromkeys(texts) if t.strip() and len(t) < 3000]
scripts = [t for t in rng.sample(texts, 400) if not any(s in t for s in special)]
corpus = parts + scripts
rng.shuffle(corpus)
with open(HERE + "corpus.jsonl", "w", encoding="utf-8") as f:
    for text in corpus:
        f.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")

tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = Tokenizer.from_file("tests/golden/tiny-code/tokenizer.json").pre_tokenizer
tokenizer.decoder = decoders.ByteLevel()
tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(
    vocab_size=1200, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False))
model = json.loads(tokenizer.to_str())["model"]
with open(HERE + "merges.json", "w") as f:
    json.dump({"vocab": model["vocab"], "merges": model["merges"]}, f, ensure_ascii=False, indent=0)
    f.write("\n")

unseen = [t for t in texts if t not in set(corpus)]
rng.shuffle(unseen)
with open(HERE + "cases.jsonl", "w", encoding="utf-8") as f:
    for text in unseen[:1000]:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        f.write(json.dumps({"text": text, "ids": ids}, ensure_ascii=False) + "\n")
