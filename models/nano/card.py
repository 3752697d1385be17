"""Tables of README.md out of evaluate's report, put between the marks that stand there."""
import json
import os

BEGIN, END = "<!-- %s: made by evaluate -->", "<!-- end of %s -->"


def number(x, digits=3):
    return "" if x is None else "%.*f" % (digits, x)


def row(*cells):
    return "| " + " | ".join(str(c) for c in cells) + " |"


def head(*cells):
    return [row(*cells), "|" + "|".join("---" if i == 0 else "---:" for i in range(len(cells))) + "|"]


def stages(log):
    """The run by stage: steps, tokens, time, losses over the last tenth, load of experts."""
    lines = head("stage", "steps", "tokens", "minutes", "tokens/s", "loss at the end", "draft loss", "indexer KL", "routed", "highest load", "held-out")
    steps = [x for x in log if "lm" in x]
    held = {x["step"]: x["held_out"] for x in log if "held_out" in x}
    for name in dict.fromkeys(x["stage"] for x in steps):
        mine = [x for x in steps if x["stage"] == name]
        late = mine[-max(1, len(mine) // 10) :]
        seconds = sum(x["seconds"] for x in mine)
        tokens = mine[-1]["tokens"] - (mine[0]["tokens"] - mine[0]["seconds"] * mine[0]["tokens_s"])

        def mean(key):
            values = [x[key] for x in late if key in x]
            return number(sum(values) / len(values)) if values and any(values) else ""

        lines.append(row(name, len(mine), "%d K" % round(tokens / 1e3), round(seconds / 60), round(tokens / seconds), mean("lm"), mean("mtp.1"), mean("kl"),
                         mean("routed"), loads(mine), number(held.get(mine[-1]["step"]))))
    return lines


def loads(steps, experts=16):
    """The most loaded expert over its layer's mean, counts of the last logged steps added up."""
    logged = [x["loads"] for x in steps if "loads" in x][-10:]
    if not logged:
        return ""
    sums = [[sum(step[layer][e] for step in logged) for e in range(experts)] for layer in range(len(logged[0]))]
    return "%.2f" % max(max(s) * experts / sum(s) for s in sums)


def results(r):
    lines = []
    if "text" in r:
        lines += head("held-out text", "bytes", "nats/token", "bits/byte", "zstd -19", "xz -9e")
        for name, x in r["text"].items():
            lines.append(row(name, x["bytes"], number(x["nats_per_token"]), "**%s**" % number(x["bits_per_byte"]), number(x["zstd"]), number(x["xz"])))
    if "tiny" in r:
        for name, x in r["tiny"].items():
            if name.startswith("window"):
                lines.append(row("`tiny-code/heldout.txt`, " + name, 145405, number(x["nats_per_token"]), "**%s**" % number(x["bits_per_byte"]),
                                 number(r["tiny"]["zstd"]), number(r["tiny"]["xz"])))
    lines.append("")
    lines += head("what", "result")
    if "draft" in r:
        lines.append(row("draft module: its likeliest token is the model's", "%.1f %% of %d" % (100 * r["draft"]["agreement"], r["draft"]["positions"])))
    if "code" in r:
        lines.append(row("greedy continuations of held-out Python functions that parse", "%d of %d" % (r["code"]["parse"], r["code"]["completions"])))
    for length, x in r.get("needle", {}).items():
        if length == "pass key":
            lines.append(row("`longcat eval needle`, chat, the same lengths, 5 depths", "%.0f %% of %d" % (100 * x["found"], x["samples"] * len(x["cells"]))))
            continue
        lines.append(row("a fact found in a text of %s tokens" % length, "%d of %d" % (x["right"], x["asked"])))
    for name, x in r.get("tools", {}).items():
        lines.append(row("call of `%s`: right name; every byte of the arguments too" % name, "%d; %d of %d" % (x["name"], x["right"], x["asked"])))
    if "index" in r:
        for name in ("all keys", "trained indexer", "random indexer", "nearest keys"):
            lines.append(row("nats/token from position %d on, %s" % (r["index"]["from position"], name), number(r["index"][name], 4)))
    return lines


def put(path, name, lines):
    with open(path, encoding="utf-8") as f:
        text = f.read()
    begin, end = BEGIN % name, END % name
    before, rest = text.split(begin, 1)
    after = rest.split(end, 1)[1]
    with open(path, "w", encoding="utf-8") as f:
        f.write(before + begin + "\n" + "\n".join(lines) + "\n" + end + after)


def write(path, report, run):
    put(path, "results", results(report))
    if run:
        with open(os.path.join(run, "log.jsonl")) as f:
            put(path, "stages", stages([json.loads(line) for line in f]))
