"""Drills of copying and looking up: repeat a span, find a fact in a long text, read a table."""
import words as w
from tools import says, user


def repeat(rng, world, text):
    lines = text.split("\n")
    at = rng.randrange(max(1, len(lines) - 12))
    span = "\n".join(lines[at : at + rng.randrange(1, 12)]).strip("\n")
    if not 10 <= len(span) <= 900:
        return None
    ask = rng.choice(["Repeat this text:\n\n%s", "Copy the following exactly:\n%s", "Say this again, word for word:\n\n%s", "%s\n\nRepeat that."])
    return {"messages": [user(ask % span), says(span)]}


def strings(rng, world, text):
    names = [world.word() for _ in range(rng.randrange(2, 14))]
    if rng.random() < 0.5:
        return {"messages": [user(rng.choice(["Repeat: %s", "Copy this list: %s", "Say: %s"]) % " ".join(names)), says(" ".join(names))]}
    i = rng.randrange(len(names))
    where = ["first", "second", "third", "fourth", "fifth"]
    if i == len(names) - 1:
        return {"messages": [user("Which word is the last one? " + " ".join(names)), says(names[-1])]}
    if i < 5:
        return {"messages": [user("Which word is the %s one? %s" % (where[i], " ".join(names))), says(names[i])]}
    return {"messages": [user("Which word comes after %s? %s" % (names[i], " ".join(names))), says(names[i + 1])]} if names.count(names[i]) == 1 else None


def table(rng, world, text):
    rows = [(world.word(), str(rng.randrange(10, 100000)) if rng.random() < 0.5 else world.word()) for _ in range(rng.randrange(3, 40))]
    keys = [k for k, _ in rows]
    rows = [(k, v) for k, v in rows if keys.count(k) == 1]
    if len(rows) < 3:
        return None
    form = rng.choice(["{k} = {v}", "{k}: {v}", "| {k} | {v} |", "The value of {k} is {v}.", "{k}\t{v}"])
    lines = "\n".join(form.format(k=k, v=v) for k, v in rows)
    picked = rng.sample(rows, min(len(rows), rng.randrange(1, 4)))
    turns = []
    for i, (k, v) in enumerate(picked):
        ask = rng.choice(["What is {k}?", "What is the value of {k}?", "Which value does {k} have?"]).format(k=k)
        turns += [user(lines + "\n\n" + ask if i == 0 else ask), says(v)]
    return {"messages": turns}


FACTS = [
    ("The secret number of {k} is {v}.", "What is the secret number of {k}?", "number"),
    ("The code word for {k} is {v}.", "What is the code word for {k}?", "word"),
    ("Remember: the key of {k} is {v}.", "What is the key of {k}?", "any"),
    ("The magic number is {v}.", "What is the magic number?", "number"),
    ("The pass key is {v}. Remember it.", "What is the pass key?", "number"),
    ("{k}_token = \"{v}\"", "What is {k}_token?", "any"),
    ("# note: {k} lives at {v}", "Where does {k} live?", "any"),
]


def needle(rng, world, text):
    return needle_of(rng, world, text, rng.randrange(1, 6) * 1000)


def needle_of(rng, world, text, long):
    """One to three facts in a text of about `long` bytes; questions behind it."""
    lines = text.split("\n")
    at, used, taken = rng.randrange(max(1, len(lines) // 2)), 0, []
    while at < len(lines) and used < long:
        taken.append(lines[at])
        used += len(lines[at]) + 1
        at += 1
    facts, seen = [], set()
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        form, ask, kind = rng.choice(FACTS)
        if ask in seen:
            continue
        seen.add(ask)
        k = world.word()
        v = world.word() if kind == "word" or kind == "any" and rng.random() < 0.5 else str(rng.randrange(1000, 10000000))
        taken.insert(rng.randrange(len(taken) + 1), form.format(k=k, v=v))
        facts.append((ask.format(k=k), v))
    rng.shuffle(facts)
    body = "\n".join(taken)
    turns = [user((body + "\n\n" + facts[0][0]) if rng.random() < 0.8 else facts[0][0] + "\n\n" + body), says(facts[0][1])]
    for ask, v in facts[1:]:
        turns += [user(ask), says(v)]
    return {"messages": turns}


KINDS = [repeat, strings, table, needle, needle, needle]


def conversation(rng, world, text):
    talk = rng.choice(KINDS)(rng, world, text)
    if talk and rng.random() < 0.15:
        talk["messages"].insert(0, {"role": "system", "content": rng.choice([s for s in w.SYSTEM if s])})
    return talk
