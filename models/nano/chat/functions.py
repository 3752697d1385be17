"""Tasks on functions of the corpus: complete, explain, document, rename, repair."""
import ast
import io
import keyword
import re
import textwrap
import tokenize

FENCE = {"python": "python", "go": "go", "rust": "rust", "javascript": "javascript", "c": "c", "shell": "sh"}


def fence(code, language="python"):
    return "```" + FENCE[language] + "\n" + code.strip("\n") + "\n```"


def first_sentence(doc):
    text = " ".join(doc.strip().split("\n\n")[0].split())
    end = re.search(r"\.(\s|$)", text)
    return text[: end.start() + 1] if end else text


def python_functions(text):
    """(name, source, docstring or None, source without docstring), top level and methods."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    lines = text.split("\n")
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or node.decorator_list:
            continue
        if not 3 <= node.end_lineno - node.lineno <= 30 or not node.body:
            continue
        source = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]))
        if not 60 <= len(source) <= 1200 or "\t" in source:
            continue
        doc = ast.get_docstring(node)
        bare = None
        if doc and len(node.body) > 1:
            first = node.body[0]
            kept = lines[node.lineno - 1 : first.lineno - 1] + lines[first.end_lineno : node.end_lineno]
            bare = textwrap.dedent("\n".join(kept))
        try:
            ast.parse(source)
        except (SyntaxError, ValueError):
            continue
        yield node.name, source, doc, bare


def split_head(source, doc_first):
    """Signature (with docstring, if there is one) and the rest."""
    node = ast.parse(source).body[0]
    at = node.body[0].end_lineno if doc_first else node.body[0].lineno - 1
    lines = source.split("\n")
    return "\n".join(lines[:at]), "\n".join(lines[at:])


def brace_functions(text, language):
    """(name, comment, source) of documented functions in Go, Rust and JavaScript."""
    head = {
        "go": r"((?://[^\n]*\n)*)func (?:\([^)\n]*\) )?(\w+)\([^\n]*\{\n",
        "rust": r"((?: *///[^\n]*\n)*) *(?:pub(?:\([a-z]+\))? )?fn (\w+)[^\n;]*\{\n",
        "javascript": r"((?: *//[^\n]*\n)*) *(?:export )?(?:async )?function (\w+)\([^\n]*\{\n",
        "c": r"((?:/\*[^\n]*\*/\n)*)(?:static )?[a-z]\w*[ \*]+(\w+)\([^\n;]*\)\n?\s*\{\n",
    }[language]
    for m in re.finditer(r"(?m)^" + head, text):
        indent = re.match(r" *", text[m.end(1) :]).group(0)
        end = text.find("\n" + indent + "}", m.end())
        if end < 0 or end - m.start() > 1000 or text.count("\n", m.end(), end) > 30:
            continue
        source = textwrap.dedent(text[m.end(1) : end + 2 + len(indent)])
        comment = " ".join(line.strip().lstrip("/").strip() for line in m.group(1).strip().split("\n"))
        if 40 <= len(source) <= 1000:
            yield m.group(2), comment, source


def local_names(source):
    node = ast.parse(source).body[0]
    args = {a.arg for a in node.args.args + node.args.kwonlyargs if a.arg not in ("self", "cls")}
    assigned = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return sorted(n for n in args | assigned if len(n) > 1)


def rename(source, old, new):
    """None if a token other than a plain name would have to change."""
    out = []
    lines = source.split("\n")
    try:
        for t in tokenize.generate_tokens(io.StringIO(source).readline):
            if t.type == tokenize.STRING and re.search(r"\b%s\b" % old, t.string):
                return None
            if t.type != tokenize.NAME or t.string != old:
                continue
            row, col = t.start
            if col and lines[row - 1][col - 1] == ".":
                return None
            out.append((row - 1, col))
    except (tokenize.TokenError, IndentationError, SyntaxError):
        return None
    for row, col in reversed(out):
        lines[row] = lines[row][:col] + new + lines[row][col + len(old) :]
    result = "\n".join(lines)
    try:
        ast.parse(result)
    except SyntaxError:
        return None
    return result if len(out) > 1 else None


MUTATIONS = [
    (r" == ", " != "), (r" != ", " == "), (r" < ", " > "), (r" > ", " < "), (r" <= ", " >= "), (r" >= ", " <= "),
    (r" \+ 1\b", " - 1"), (r" - 1\b", " + 1"), (r" is not None", " is None"), (r" is None", " is not None"),
    (r"\bTrue\b", "False"), (r"\bFalse\b", "True"), (r" and ", " or "), (r" or ", " and "), (r"\bif not ", "if "),
    (r"\[0\]", "[1]"), (r"\[-1\]", "[0]"), (r" \+= ", " -= "), (r":$", ""), (r"\)$", ""), (r"\breturn ", "retrun "),
    (r"\bself\.", "slef."), (r" in ", " not in "), (r" not in ", " in "),
]


def mutate(rng, source):
    """(broken source, broken line, right line) or None."""
    lines = source.split("\n")
    choices = []
    for i, line in enumerate(lines):
        if i == 0 or not line.strip() or '"""' in line or line.lstrip().startswith("#"):
            continue
        for pattern, put in MUTATIONS:
            m = list(re.finditer(pattern, line))
            if m:
                choices.append((i, m, put))
    if not choices:
        return None
    i, found, put = rng.choice(choices)
    m = rng.choice(found)
    right = lines[i]
    lines[i] = right[: m.start()] + put + right[m.end() :]
    return "\n".join(lines), lines[i].strip(), right.strip()


def fresh_name(rng, words, taken):
    for _ in range(20):
        name = rng.choice(words)
        if name not in taken and not keyword.iskeyword(name):
            return name
    return None


def python_task(rng, function, words):
    """One (question, answer), or None if the function doesn't suit the task that was drawn."""
    name, source, doc, bare = function
    kind = rng.choice(["complete", "complete", "complete", "explain", "docstring", "rename", "bug", "bug", "repeat"])
    plain = bare or source
    if kind == "complete":
        head, rest = split_head(source, bool(doc and bare))
        if not rest.strip():
            return None
        ask = rng.choice(["Complete this function:\n\n%s", "Complete the function:\n%s", "Finish this Python function.\n\n%s",
                          "Write the body of this function:\n\n%s"])
        return ask % fence(head), fence(head + "\n" + rest)
    if kind == "explain":
        if not doc or not 15 <= len(first_sentence(doc)) <= 200:
            return None
        ask = rng.choice(["What does `{n}` do?\n\n{c}", "{c}\n\nWhat does this function do?", "Explain `{n}` in one sentence.\n\n{c}"])
        return ask.format(n=name, c=fence(plain)), first_sentence(doc)
    if kind == "docstring":
        if not doc or not bare or not 15 <= len(first_sentence(doc)) <= 200:
            return None
        ask = rng.choice(["Write a docstring for this function:\n\n%s", "Write a one-line docstring.\n\n%s"])
        return ask % fence(bare), '"""' + first_sentence(doc) + '"""'
    if kind == "rename":
        names = local_names(plain)
        if not names or len(plain) > 700:
            return None
        old = rng.choice(names)
        new = fresh_name(rng, words, plain)
        changed = new and rename(plain, old, new)
        if not changed:
            return None
        ask = rng.choice(["Rename `{o}` to `{n}`:\n\n{c}", "{c}\n\nRename the variable `{o}` to `{n}`.", "In this function, call `{o}` `{n}` instead.\n\n{c}"])
        return ask.format(o=old, n=new, c=fence(plain)), fence(changed)
    if kind == "bug":
        m = mutate(rng, plain)
        if not m or len(plain) > 700:
            return None
        broken, wrong, right = m
        ask = rng.choice(["This function has a bug. Fix it.\n\n%s", "Find and fix the bug:\n\n%s", "%s\n\nThere is a mistake in one line. Correct it."])
        if rng.random() < 0.5:
            return ask % fence(broken), fence(plain)
        return ask % fence(broken) + "\n\nShow only the line.", "`%s` should be `%s`" % (wrong, right)
    if len(plain) > 700:
        return None
    return rng.choice(["Repeat this code:\n\n%s", "Copy this function exactly.\n\n%s"]) % fence(plain), fence(plain)


def brace_task(rng, function, language):
    name, comment, source = function
    named = {"go": "Go", "rust": "Rust", "javascript": "JavaScript", "c": "C"}[language]
    head, rest = source.split("\n", 1)
    if comment and 15 <= len(comment) <= 200 and rng.random() < 0.3:
        return "What does the %s function `%s` do?\n\n%s" % (named, name, fence(source, language)), first_sentence(comment)
    note = "// " + comment + "\n" if comment and len(comment) <= 200 else ""
    return "Complete this %s function:\n\n%s" % (named, fence(note + head, language)), fence(head + "\n" + rest, language)
