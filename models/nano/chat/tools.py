"""Conversations with the tools read, list, replace, write and done. Arguments are mostly spans of what
stands earlier in the conversation, so that copying is what is learned."""
import json

import words as w


def tool(name, description, **arguments):
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {k: {"type": "string", "description": v} for k, v in arguments.items()},
                "required": list(arguments),
            },
        },
    }


TOOLS = {
    "read": tool("read", "Read a file.", path="file"),
    "list": tool("list", "List a folder.", path="folder"),
    "replace": tool("replace", "Replace a text in a file.", path="file", old="text to replace", new="text to put there"),
    "write": tool("write", "Write a file.", path="file", content="the whole file"),
    "done": tool("done", "Finish.", message="what was done"),
}


def call(name, **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


class World:
    """Names of one conversation, all from one half of the lists."""

    def __init__(self, rng, heldout):
        self.rng = rng
        self.nouns = w.half(w.NOUNS, heldout)
        self.adjectives = w.half(w.ADJECTIVES, heldout)
        self.keys = w.half(w.KEYS, heldout)
        self.stems = w.half(w.STEMS, heldout)

    def word(self):
        r = self.rng.random()
        if r < 0.4:
            return self.rng.choice(self.nouns)
        if r < 0.7:
            return self.rng.choice(self.adjectives) + "_" + self.rng.choice(self.nouns)
        return self.rng.choice(self.nouns) + str(self.rng.randrange(100))

    def path(self, extension):
        rng = self.rng
        name = rng.choice(self.stems) if rng.random() < 0.5 else rng.choice(self.nouns)
        if rng.random() < 0.2:
            name += "_" + rng.choice(self.nouns)
        folder = rng.choice(w.FOLDERS) + "/" if rng.random() < 0.5 else ""
        return folder + name + extension

    def value(self):
        rng = self.rng
        r = rng.random()
        if r < 0.35:
            return str(rng.randrange(1, 10000))
        if r < 0.5:
            return "%d.%d" % (rng.randrange(10), rng.randrange(100))
        if r < 0.9:
            return '"%s"' % self.word()
        return rng.choice(["True", "False"])

    def settings(self):
        keys = self.rng.sample(self.keys, self.rng.randrange(3, min(8, len(self.keys))))
        return [(k, self.value()) for k in keys]


STYLES = {
    ".py": "{k} = {v}", ".toml": "{k} = {v}", ".ini": "{k} = {v}", ".sh": "{k}={v}", ".yaml": "{k}: {v}", ".env": "{k}={v}",
    ".js": "const {k} = {v};", ".json": '  "{k}": {v},',
}


def talk(rng, system, tools, turns):
    """`tools`: names; they are declared in a random order, sometimes with others that aren't needed."""
    names = list(tools)
    if rng.random() < 0.3:
        names = list(TOOLS)
    rng.shuffle(names)
    messages = ([{"role": "system", "content": system}] if system else []) + turns
    return {"messages": messages, "tools": [TOOLS[n] for n in names]}


def user(text):
    return {"role": "user", "content": text}


def says(text="", *calls):
    m = {"role": "assistant", "content": text}
    if calls:
        m["tool_calls"] = list(calls)
    return m


def result(text):
    return {"role": "tool", "content": text}


def ending(rng, text):
    """The last turn: `done` or plain words."""
    if rng.random() < 0.5:
        return [says("", call("done", message=text)), result("ok"), says(text)]
    return [says(text)]


def change_value(rng, world, function):
    ext = rng.choice(list(STYLES))
    path, settings = world.path(ext), world.settings()
    line = [STYLES[ext].format(k=k, v=v) for k, v in settings]
    i = rng.randrange(len(settings))
    key, old = settings[i]
    new = world.value()
    if new == old:
        return None
    changed = STYLES[ext].format(k=key, v=new)
    ask = rng.choice(["In {p}, set {k} to {n}.", "Change {k} in {p} to {n}.", "Set {k} to {n} in {p}", "Please make {k} {n} in the file {p}.",
                      "{p}: {k} should be {n}, not {o}."]).format(p=path, k=key, n=new, o=old)
    turns = [user(ask)]
    if "{o}" in ask or rng.random() < 0.85:
        turns += [says("", call("read", path=path)), result("\n".join(line))]
    else:
        turns[0] = user(ask + " The line is `%s`." % line[i])
    turns += [says("", call("replace", path=path, old=line[i], new=changed)), result("ok")]
    return talk(rng, rng.choice(w.SYSTEM), ["read", "replace", "done"], turns + ending(rng, "Set %s to %s in %s." % (key, new, path)))


def which_value(rng, world, function):
    ext = rng.choice(list(STYLES))
    path, settings = world.path(ext), world.settings()
    key, value = rng.choice(settings)
    ask = rng.choice(["What is {k} in {p}?", "Which value does {k} have in {p}?", "Read {p} and tell me {k}.", "Look up {k} in {p}."])
    turns = [user(ask.format(k=key, p=path)), says("", call("read", path=path)),
             result("\n".join(STYLES[ext].format(k=k, v=v) for k, v in settings)), says("%s is %s." % (key, value))]
    return talk(rng, rng.choice(w.SYSTEM), ["read"], turns)


def new_file(rng, world, function):
    ext = rng.choice([".txt", ".md", ".py", ".env", ".toml"])
    path = world.path(ext)
    if rng.random() < 0.4 and function and len(function) < 500:
        path, content = world.path(".py"), function + "\n"
        ask = "Write this to %s:\n\n```python\n%s\n```" % (path, function)
    else:
        content = " ".join(world.word() for _ in range(rng.randrange(1, 7)))
        ask = rng.choice(["Create {p} with the text {c}", "Write `{c}` to {p}.", "Make a file {p} that says: {c}", "Put {c} into a new file {p}"])
        ask = ask.format(p=path, c=content)
    turns = [user(ask), says("", call("write", path=path, content=content)), result("ok")]
    return talk(rng, rng.choice(w.SYSTEM), ["write", "done"], turns + ending(rng, "Wrote %s." % path))


def list_folder(rng, world, function):
    folder = rng.choice(w.FOLDERS)
    files = sorted({rng.choice(world.stems + world.nouns) + rng.choice([".py", ".md", ".txt", ".json", ".c"]) for _ in range(rng.randrange(2, 9))})
    ask = rng.choice(["What is in {f}?", "List the folder {f}.", "Which files are in {f}?", "ls {f}"]).format(f=folder)
    answer = "%s holds %s." % (folder, ", ".join(files))
    turns = [user(ask), says("", call("list", path=folder)), result("\n".join(files))]
    if rng.random() < 0.4:
        pick = rng.choice(files)
        text = " ".join(world.word() for _ in range(4))
        turns += [says(answer), user(rng.choice(["Read %s.", "What does %s say?", "Show me %s."]) % pick), says("", call("read", path=folder + "/" + pick)),
                  result(text), says("It says: " + text)]
    else:
        turns.append(says(answer))
    return talk(rng, rng.choice(w.SYSTEM), ["list", "read"], turns)


def replace_word(rng, world, function):
    """A word in a function of the corpus: the old text is a whole line of it."""
    if not function or len(function) > 900:
        return None
    path = world.path(".py")
    lines = function.split("\n")
    candidates = [i for i, x in enumerate(lines) if len(x.strip()) > 6 and lines.count(x) == 1]
    if not candidates:
        return None
    i = rng.choice(candidates)
    old = lines[i].strip()
    kind = rng.random()
    if kind < 0.4:
        new = old + "  # " + world.word()
        ask = "Add the comment `# %s` behind the line `%s` in %s." % (new.rsplit("# ", 1)[1], old, path)
    elif kind < 0.7:
        parts = [p for p in old.replace("(", " ").replace(")", " ").replace(".", " ").replace(",", " ").split() if p.isidentifier() and len(p) > 3]
        if not parts:
            return None
        word, other = rng.choice(parts), world.word()
        new = old.replace(word, other)
        ask = "In %s, the line `%s` should say %s instead of %s." % (path, old, other, word)
    else:
        new = "pass"
        ask = "In %s, replace the line `%s` by `pass`." % (path, old)
    turns = [user(ask)]
    if rng.random() < 0.7:
        turns += [says("", call("read", path=path)), result(function)]
    turns += [says("", call("replace", path=path, old=old, new=new)), result("ok")]
    return talk(rng, rng.choice(w.SYSTEM), ["read", "replace", "done"], turns + ending(rng, "Changed %s." % path))


def failing(rng, world, function):
    path = world.path(rng.choice([".py", ".md", ".json"]))
    text = "error: no file " + path
    turns = [user(rng.choice(["Read %s.", "What is in %s?", "Show me the file %s."]) % path), says("", call("read", path=path)), result(text),
             says("There is no file %s." % path)]
    return talk(rng, rng.choice(w.SYSTEM), ["read"], turns)


KINDS = [change_value, change_value, change_value, which_value, new_file, list_folder, replace_word, replace_word, failing]


def conversation(rng, world, function):
    return rng.choice(KINDS)(rng, world, function)


def size(talk_):
    return len(json.dumps(talk_))
