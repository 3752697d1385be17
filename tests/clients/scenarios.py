#!/usr/bin/env python3
"""What agents meet beside plain answers, with the vendors' SDKs against servers of its own: one line a scenario.

usage: scenarios.py chat|responses|messages LONGCAT MODEL FOLDER     (chat, responses: package openai; messages: anthropic)
"""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

sdk = __import__("anthropic" if sys.argv[1] == "messages" else "openai")
transport = sys.modules.get("httpx2") or sys.modules["httpx"]  # what the SDK talks by: a newer one has a new name

wire, program, model, folder = sys.argv[1:5]
WORDS = " ".join(f"word{i % 97} of line {i}" for i in range(600))  # some thousand tokens
TOOL = {"type": "object", "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}}, "required": ["colour"],
        "additionalProperties": False}
ON = {"logit_bias": {"2": -100}}  # no end of turn


class Server:
    def __init__(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.key = "local"
        self.start()

    def start(self):
        with open(os.path.join(folder, "serve.log"), "ab") as log:
            self.process = subprocess.Popen([program, "serve", model, "--port", str(self.port), "--data", folder],
                                            stdout=subprocess.DEVNULL, stderr=log)
        while not self.answers():
            if self.process.poll() is not None:
                raise SystemExit("the server doesn't start")
            time.sleep(0.05)

    def answers(self):
        try:
            return self.get("/ready")
        except OSError:
            return ""

    def get(self, path):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        c.request("GET", path, headers={"Authorization": f"Bearer {self.key}"})
        text = c.getresponse().read().decode()
        c.close()
        return text

    def running(self):
        return float(re.search(r"num_requests_running\{[^}]*\} (\S+)", self.get("/metrics")).group(1))

    def end(self, how):
        self.process.send_signal(how)
        self.process.wait()


class Chat:
    path = "/v1/chat/completions"

    def __init__(self, port, key="local", retries=0):
        self.sdk = sdk.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key, max_retries=retries)

    def body(self, turns, most, **more):
        return {"model": "any", "messages": turns, "max_tokens": most, "temperature": 0, **more}

    def ask(self, turns, most=16, extra=None, **more):
        return self.sdk.chat.completions.create(**self.body(turns, most, **more), extra_body=extra)

    def stream(self, turns, most):
        return self.ask(turns, most, stream=True)

    def tools(self, turns):
        tools = [{"type": "function", "function": {"name": n, "parameters": TOOL}} for n in ("pick", "paint")]
        got = self.ask(turns, 120, ON, tools=tools, tool_choice="required").choices[0].message
        calls = [(c.function.name, json.loads(c.function.arguments)) for c in got.tool_calls]
        after = turns + [got.model_dump(exclude_none=True)]
        after += [{"role": "tool", "tool_call_id": c.id, "content": "ok"} for c in got.tool_calls]
        return calls, self.ask(after, 8, tools=tools, tool_choice="none")

    def thought(self, on):
        got = self.ask([{"role": "user", "content": "Hello"}], 24, {"enable_thinking": on, **ON})
        return bool(getattr(got.choices[0].message, "reasoning_content", None))

    def image(self):
        return self.ask([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}])

    def text(self, answer):
        m = answer.choices[0].message
        return (getattr(m, "reasoning_content", None) or "") + (m.content or "")

    def share(self, answer):
        return answer.usage.prompt_tokens_details.cached_tokens / answer.usage.prompt_tokens


class Responses(Chat):
    path = "/v1/responses"

    def body(self, turns, most, **more):
        return {"model": "any", "input": turns, "max_output_tokens": most, "temperature": 0, **more}

    def ask(self, turns, most=16, extra=None, **more):
        return self.sdk.responses.create(**self.body(turns, most, **more), extra_body=extra)

    def tools(self, turns):
        tools = [{"type": "function", "name": n, "parameters": TOOL, "strict": True} for n in ("pick", "paint")]
        got = self.ask(turns, 120, ON, tools=tools, tool_choice="required")
        made = [o for o in got.output if o.type == "function_call"]
        after = turns + [o.model_dump(exclude_none=True) for o in got.output]
        after += [{"type": "function_call_output", "call_id": c.call_id, "output": "ok"} for c in made]
        return [(c.name, json.loads(c.arguments)) for c in made], self.ask(after, 8, tools=tools, tool_choice="none")

    def thought(self, on):
        got = self.ask([{"role": "user", "content": "Hello"}], 24, {"reasoning": {"effort": "high" if on else "none"}, **ON})
        return any(o.type == "reasoning" for o in got.output)

    def image(self):
        return self.ask([{"role": "user", "content": [{"type": "input_image", "image_url": "data:,", "detail": "auto"}]}])

    def text(self, answer):
        return "".join(p.text for o in answer.output for p in (o.content or []) if o.type == "message")

    def share(self, answer):
        return answer.usage.input_tokens_details.cached_tokens / answer.usage.input_tokens


class Messages(Chat):
    path = "/v1/messages"

    def __init__(self, port, key="local", retries=0):
        self.sdk = sdk.Anthropic(base_url=f"http://127.0.0.1:{port}", api_key=key, max_retries=retries)

    def ask(self, turns, most=16, extra=None, **more):
        return self.sdk.messages.create(model="any", messages=turns, max_tokens=most, extra_body={"temperature": 0, **(extra or {})},
                                        **more)

    def tools(self, turns):
        tools = [{"name": n, "input_schema": TOOL} for n in ("pick", "paint")]
        got = self.ask(turns, 120, ON, tools=tools, tool_choice={"type": "any"})
        made = [b for b in got.content if b.type == "tool_use"]
        after = turns + [{"role": "assistant", "content": [b.model_dump(exclude_none=True) for b in got.content]},
                         {"role": "user", "content": [{"type": "tool_result", "tool_use_id": b.id, "content": "ok"} for b in made]}]
        return [(b.name, b.input) for b in made], self.ask(after, 8, tools=tools, tool_choice={"type": "none"})

    def thought(self, on):
        how = {"type": "enabled", "budget_tokens": 1024} if on else {"type": "disabled"}
        got = self.ask([{"role": "user", "content": "Hello"}], 24, {"thinking": how, **ON})
        return any(b.type == "thinking" for b in got.content)

    def image(self):
        return self.ask([{"role": "user", "content": [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}]}])

    def text(self, answer):
        return "".join(getattr(b, "text", None) or getattr(b, "thinking", "") for b in answer.content)

    def share(self, answer):
        u = answer.usage
        return u.cache_read_input_tokens / (u.input_tokens + u.cache_read_input_tokens)


KIND = {"chat": Chat, "responses": Responses, "messages": Messages}[wire]


def said(text):
    return [{"role": "user", "content": text}]


def plain(server):
    c = KIND(server.port)
    answer = c.text(c.ask(said("Hello")))
    assert answer and answer == c.text(c.ask(said("Hello"))), answer


def parallel_calls(server):
    calls, after = KIND(server.port).tools(said("Pick colours"))
    assert len(calls) > 1 and all(n in ("pick", "paint") and a["colour"] in ("red", "blue") for n, a in calls), calls
    assert after.usage


def thinking_on_and_off(server):
    c = KIND(server.port)
    assert c.thought(True) and not c.thought(False)


def pings_while_a_long_prompt_is_computed(server):
    c, body = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120), KIND(server.port).body
    c.request("POST", KIND.path, json.dumps(body(said("cold " + 10 * WORDS), 4, stream=True)), {"content-type": "application/json"})
    reply, pings = c.getresponse(), 0
    assert reply.status == 200
    for line in reply:
        if re.search(rb'"content":"[^"]|text_delta|output_text.delta', line):
            break
        pings += line.startswith(b":") or line.startswith(b"event: ping")
    c.close()
    assert pings, "none"


def two_at_once_with_a_key_for_one(server):
    def keys(*args):
        return subprocess.run([program, "keys", *args, "--data", folder], capture_output=True, text=True, check=True).stdout

    key, server.key = keys("create", "one").strip(), keys("create", "watch").strip()
    keys("limit", "one", "--concurrent", "1")
    server.end(signal.SIGTERM)
    server.start()  # now keys are needed
    impatient, patient, got = KIND(server.port, key), KIND(server.port, key, retries=10), []
    long = threading.Thread(target=lambda: got.append(patient.ask(said("Count"), 1500, {"ignore_eos": True})))
    long.start()
    while not server.running():
        time.sleep(0.01)
    try:
        impatient.ask(said("Hello"))
        raise AssertionError("two were answered at once")
    except sdk.RateLimitError as e:
        assert e.response.headers.get("retry-after"), e
    assert patient.ask(said("Hello"))  # the SDK waits as long as it is told
    long.join()
    assert got


def a_restart_while_it_retries(server):
    long = threading.Thread(target=lambda: KIND(server.port).ask(said("Count"), 600, {"ignore_eos": True}))
    long.start()
    while not server.running():
        time.sleep(0.01)
    server.process.send_signal(signal.SIGTERM)  # from now on 503, then nobody
    got = []
    other = threading.Thread(target=lambda: got.append(KIND(server.port, retries=10).ask(said("Hello"))))
    other.start()
    server.process.wait()
    server.start()
    other.join()
    long.join()
    assert got


def a_stream_that_is_cut_is_an_error(server):
    c = KIND(server.port)
    try:
        for i, _ in enumerate(c.stream(said("Count " + WORDS[:200]), 4000)):
            if i == 3:
                server.end(signal.SIGKILL)
        raise AssertionError("a cut answer ended like a whole one")
    except (sdk.APIError, transport.HTTPError):
        server.start()


def closing_stops_the_answer(server):
    s = KIND(server.port).ask(said("Count"), 4000, {"ignore_eos": True}, stream=True)
    next(iter(s))
    assert server.running() == 1
    s.close()
    end = time.monotonic() + 2
    while server.running() and time.monotonic() < end:
        time.sleep(0.02)
    assert not server.running()


def an_image_is_refused_in_words(server):
    c = KIND(server.port)
    try:
        c.image()
        raise AssertionError("an image was accepted")
    except sdk.BadRequestError as e:
        assert "text only" in str(e), e


def an_overflow_is_told_in_words(server):
    c = KIND(server.port)
    try:
        c.ask(said(40 * WORDS))
        raise AssertionError("more than the context was accepted")
    except sdk.BadRequestError as e:
        assert "prompt is too long" in str(e) or "maximum context length" in str(e) or "context window" in str(e), e


def a_hundred_counts_at_once(server):
    if wire != "messages":
        return "only Messages counts"
    c, counts = KIND(server.port), []
    threads = [threading.Thread(target=lambda: counts.append(
        c.sdk.messages.count_tokens(model="any", messages=said(WORDS)).input_tokens)) for _ in range(100)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(counts) == 100 and len(set(counts)) == 1, counts
    return None


def the_next_turn_comes_from_the_cache(server):
    c = KIND(server.port)
    first = c.ask(said(WORDS), 8)
    turns = said(WORDS) + [{"role": "assistant", "content": c.text(first) or "ok"}] + said("And now?")
    share = c.share(c.ask(turns, 8))
    assert share >= 0.95, share
    server.end(signal.SIGTERM)
    server.start()
    share = c.share(c.ask(turns + [{"role": "assistant", "content": "Yes."}] + said("More"), 8))
    assert share >= 0.95, share
    server.end(signal.SIGKILL)
    server.start()
    share = c.share(c.ask(turns + [{"role": "assistant", "content": "Yes."}] + said("Less"), 8))
    assert share >= 0.95, share


def main():
    server, failed = Server(), 0
    for scenario in (plain, parallel_calls, thinking_on_and_off, pings_while_a_long_prompt_is_computed,
                     the_next_turn_comes_from_the_cache, a_hundred_counts_at_once, an_image_is_refused_in_words,
                     an_overflow_is_told_in_words, closing_stops_the_answer, a_stream_that_is_cut_is_an_error,
                     a_restart_while_it_retries, two_at_once_with_a_key_for_one):
        try:
            print(f"  {scenario.__name__}: {scenario(server) or 'ok'}", flush=True)
        except Exception as e:  # noqa: BLE001 - whatever it is, the next scenario is run
            failed += 1
            print(f"  {scenario.__name__}: FAILED: {type(e).__name__}: {str(e)[:300]}", flush=True)
    server.end(signal.SIGTERM)
    sys.exit(failed > 0)


main()
