"""What load and reuse share: a server of one's own, requests in four dialects, answers and usage as the client was told."""

import http.client
import json
import os
import re
import signal
import sqlite3
import subprocess
import time


class Server:
    """`longcat serve` on a free port; everything it keeps is in `folder`."""

    def __init__(self, program, model, folder, *extra):
        self.program, self.model, self.folder, self.extra = program, model, folder, extra
        self.start()

    def start(self, *extra):
        begin = time.monotonic()
        self.log = open(os.path.join(self.folder, "log"), "ab")
        self.process = subprocess.Popen(
            [self.program, "serve", self.model, "--port", "0", "--data", self.folder, *self.extra, *extra],
            stdout=subprocess.PIPE, stderr=self.log)
        line = self.process.stdout.readline().decode()
        self.port = int(re.search(r"://[^:]+:(\d+)", line).group(1))
        self.ready_s = time.monotonic() - begin

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        code = self.process.wait()
        self.process.stdout.close()
        self.log.close()
        return code

    def get(self, path):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        c.request("GET", path)
        text = c.getresponse().read().decode()
        c.close()
        return text

    def metric(self, name):
        found = re.search(r"^longcat:" + name + r"\{[^}]*\} (\S+)$", self.get("/metrics"), re.M)
        return float(found.group(1)) if found else 0.0

    def memory(self):
        """Resident bytes and open files."""
        pid = self.process.pid
        with open(f"/proc/{pid}/status") as f:
            rss = int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) * 1024
        return rss, len(os.listdir(f"/proc/{pid}/fd"))

    def ledger(self):
        """request id -> (fresh, cached, output)"""
        db = sqlite3.connect(f"file:{self.folder}/accounts.db?mode=ro", uri=True)
        rows = {r[0]: r[1:] for r in db.execute("SELECT request_id, fresh, cached, output FROM usage")}
        db.close()
        return rows


PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions", "messages": "/v1/messages",
         "responses": "/v1/responses"}


def body_of(dialect, text, max_tokens, stream, **more):
    if dialect == "chat":
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": max_tokens}
    elif dialect == "messages":
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": max_tokens, "model": "any"}
    elif dialect == "completions":
        body = {"prompt": text, "max_tokens": max_tokens}
    else:
        body = {"input": text, "max_output_tokens": max_tokens}
    body["stream"] = stream
    if stream and dialect in ("chat", "completions"):
        body["stream_options"] = {"include_usage": True}
    body.update(more)
    return body


def usage_of(dialect, usage):
    """(fresh, cached, output) of a usage object."""
    if dialect == "messages":
        return usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]
    if dialect == "responses":
        cached = usage["input_tokens_details"]["cached_tokens"]
        return usage["input_tokens"] - cached, cached, usage["output_tokens"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return usage["prompt_tokens"] - cached, cached, usage["completion_tokens"]


def text_of(dialect, answer):
    """All that the model said, reasoning included."""
    if dialect == "chat":
        m = answer["choices"][0]["message"]
        return (m.get("reasoning_content") or "") + (m.get("content") or "")
    if dialect == "completions":
        return answer["choices"][0]["text"]
    if dialect == "messages":
        return "".join(b.get("thinking") or b.get("text") or "" for b in answer["content"])
    return "".join(p.get("text") or "" for o in answer["output"] for p in o.get("content") or [])


class Stream:
    """Takes the events of one streamed answer."""

    def __init__(self, dialect):
        self.dialect, self.text, self.usage, self.whole = dialect, "", None, False
        self.times = []

    def piece(self, text):
        if text:
            self.text += text
            self.times.append(time.monotonic())

    def take(self, data):
        if data == "[DONE]":
            self.whole = True
            return
        event = json.loads(data)
        kind = event.get("type")
        if self.dialect in ("chat", "completions"):
            for c in event.get("choices", []):
                d = c.get("delta", {})
                self.piece((d.get("reasoning_content") or "") + (d.get("content") or "") + (c.get("text") or ""))
            self.usage = event.get("usage") or self.usage
        elif self.dialect == "messages":
            if kind == "content_block_delta":
                self.piece(event["delta"].get("thinking") or event["delta"].get("text"))
            elif kind == "message_delta":
                self.usage = event["usage"]
            elif kind == "message_stop":
                self.whole = True
        else:
            if kind in ("response.output_text.delta", "response.reasoning_text.delta",
                        "response.reasoning_summary_text.delta"):
                self.piece(event["delta"])
            elif kind in ("response.completed", "response.incomplete"):
                self.usage, self.whole = event["response"]["usage"], True


class Result:
    def __init__(self):
        self.status, self.id, self.text, self.usage, self.whole = 0, "", None, None, False
        self.first_s, self.gaps = None, []


def ask(port, dialect, body, drop_after=0, slow=0.0, timeout=300, headers=None):
    """One request. drop_after: hangs up after so many bytes; slow: seconds between reads of 64 bytes."""
    r, begin = Result(), time.monotonic()
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        c.request("POST", PATHS[dialect], json.dumps(body), {"content-type": "application/json", **(headers or {})})
        reply = c.getresponse()
        r.status, r.id = reply.status, reply.getheader("request-id", "")
        if not body.get("stream") or r.status != 200:
            data = reply.read()
            r.first_s = time.monotonic() - begin
            if r.status == 200:
                answer = json.loads(data)
                r.text, r.usage, r.whole = text_of(dialect, answer), usage_of(dialect, answer["usage"]), True
            return r
        stream, seen = Stream(dialect), 0
        while True:
            line = reply.readline()
            if not line:
                break
            seen += len(line)
            if drop_after and seen >= drop_after:
                return r
            if slow:
                time.sleep(slow)
            if line.startswith(b"data: "):
                stream.take(line[6:].decode().strip())
        r.whole = stream.whole
        r.text = stream.text
        if stream.usage:
            r.usage = usage_of(dialect, stream.usage)
        if stream.times:
            r.first_s = stream.times[0] - begin
            r.gaps = [b - a for a, b in zip(stream.times, stream.times[1:])]
        return r
    finally:
        c.close()


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))] if values else float("nan")
