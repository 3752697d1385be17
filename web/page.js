/* The page: a conversation over /v1/chat/completions, and a panel over /v1/longcat/*. No library, no
 * resource from elsewhere; text of the model enters the document as text nodes only. */
"use strict";

const $ = id => document.getElementById(id);
const talk = $("talk"), ask = $("ask");
let messages = [];         // the conversation as the API takes it
let running = null;        // AbortController of the present answer
let experts = null;        // what the model is made of: /v1/longcat/experts
const total = { fresh: 0, cached: 0, output: 0, yuan: 0 };

const headers = () => {
  const key = $("key").value.trim();
  return { "content-type": "application/json", ...(key ? { authorization: "Bearer " + key } : {}) };
};

function make(name, parent, text, cls) {
  const e = document.createElement(name);
  if (text !== undefined) e.textContent = text;
  if (cls) e.className = cls;
  parent.append(e);
  return e;
}

/* ---- an answer: pieces of text with the routed experts that each used ---- */

class Answer {
  constructor(box) {
    this.box = box;
    this.text = "";
    this.reasoning = "";
    this.ends = [];    // where each piece ends in text
    this.routed = [];  // routed experts of each piece, or undefined
    this.due = false;
  }
  add(text, routed) {
    this.text += text;
    this.ends.push(this.text.length);
    this.routed.push(routed && routed.length ? routed.reduce((a, b) => a + b) / routed.length : undefined);
    this.draw();
  }
  /* At most once a frame: a long answer is drawn anew as it grows. */
  draw() {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => {
      const low = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 60;
      this.due = false;
      this.box.replaceChildren();
      if (this.reasoning) {
        const d = make("details", this.box);
        make("summary", d, "reasoning");
        make("div", d, this.reasoning);
      }
      markdown(this, this.box);
      if (low) talk.scrollTop = talk.scrollHeight;
    });
  }
  /* Puts text[from..to) into parent, a span for each piece. */
  put(parent, from, to) {
    let lo = 0, hi = this.ends.length;
    while (lo < hi) { const mid = lo + hi >> 1; if (this.ends[mid] > from) hi = mid; else lo = mid + 1; }
    for (let i = lo; from < to; i++) {
      const end = Math.min(to, this.ends[i] ?? to);
      const span = make("span", parent, this.text.slice(from, end), "piece");
      colour(span, this.routed[i]);
      from = end;
    }
  }
}

/* Strength of the colour: the share of the chosen experts that are real ones. */
function colour(span, routed) {
  if (routed === undefined || !experts) return;
  const share = Math.min(1, routed / experts.per_token);
  span.style.backgroundColor = `hsl(${210 - 190 * share} 90% 55% / ${0.06 + 0.34 * share})`;
  const active = experts.active_base + routed * experts.active_per_expert;
  span.title = `${routed.toFixed(2)} of ${experts.per_token} chosen experts were real, on average over ` +
    `${experts.counts.length} layers: ${count(active)} active parameters`;
}

/* ---- Markdown: blocks by line, then code, bold and italic inside ---- */

function markdown(a, box) {
  const t = a.text;
  let list = null, at = 0;
  while (at < t.length) {
    let end = t.indexOf("\n", at);
    if (end < 0) end = t.length;
    const line = t.slice(at, end);
    let m;
    if ((m = /^\s*```/.exec(line))) {
      const from = Math.min(end + 1, t.length), close = t.slice(from).search(/^\s*```/m);
      const to = close < 0 ? t.length : from + close;
      a.put(make("code", make("pre", box)), from, to);
      const next = t.indexOf("\n", to);
      at = close < 0 || next < 0 ? t.length : next + 1;
      list = null;
      continue;
    }
    if ((m = /^(#{1,6})\s+/.exec(line))) {
      inline(a, make("h3", box), at + m[0].length, end);
      list = null;
    } else if ((m = /^\s*([-*]|\d+[.)])\s+/.exec(line))) {
      const kind = /\d/.test(m[1]) ? "ol" : "ul";
      if (!list || list.localName !== kind) list = make(kind, box);
      inline(a, make("li", list), at + m[0].length, end);
    } else if (line.trim()) {
      inline(a, make("p", box), at, end);
      list = null;
    }
    at = end + 1;
  }
}

function inline(a, parent, from, to) {
  const marks = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*/g;
  const line = a.text.slice(from, to);
  let at = 0;
  for (let m; (m = marks.exec(line));) {
    a.put(parent, from + at, from + m.index);
    const width = m[2] !== undefined ? 2 : 1;
    const e = make(m[1] !== undefined ? "code" : m[2] !== undefined ? "strong" : "em", parent);
    a.put(e, from + m.index + width, from + m.index + m[0].length - width);
    at = m.index + m[0].length;
  }
  a.put(parent, from + at, to);
}

/* ---- the wire ---- */

/* Calls take(data) for each frame of a stream of server-sent events. */
async function frames(response, take) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    for (let at; (at = text.indexOf("\n\n")) >= 0; text = text.slice(at + 2))
      for (const line of text.slice(0, at).split("\n"))
        if (line.startsWith("data: ") && line !== "data: [DONE]") take(JSON.parse(line.slice(6)));
  }
}

async function answer(box) {
  const a = new Answer(box), began = performance.now();
  let first = 0, tokens = 0, usage = null, extra = {};
  const take = chunk => {
    if (chunk.error) throw new Error(chunk.error.message);
    const delta = chunk.choices?.[0]?.delta ?? {};
    const routed = chunk.longcat?.routed;
    if (delta.reasoning_content) { a.reasoning += delta.reasoning_content; a.draw(); }
    if (delta.content) {
      first ||= performance.now();
      tokens += routed?.length || 1;
      a.add(delta.content, routed);
      numbers(tokens, first, null, {});
    }
    if (chunk.usage) { usage = chunk.usage; extra = chunk.longcat ?? {}; }
  };
  running = new AbortController();
  const body = { model: $("model").textContent, messages, stream: true, stream_options: { include_usage: true },
    temperature: +$("temperature").value, max_tokens: +$("longest").value, longcat_routed: true };
  if ($("think").checked) body.thinking = { type: "enabled" };
  try {
    const r = await fetch("/v1/chat/completions",
      { method: "POST", headers: headers(), body: JSON.stringify(body), signal: running.signal });
    if (!r.ok) throw new Error((await r.json()).error?.message ?? "HTTP " + r.status);
    await frames(r, take);
  } catch (e) {
    if (e.name !== "AbortError") setTimeout(() => make("p", box, e.message, "error"), 50);
  }
  running = null;
  messages.push({ role: "assistant", content: a.text });
  if (usage) sum(usage, extra);
  numbers(tokens, first || began, usage, extra);
}

function sum(usage, extra) {
  const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
  total.cached += cached;
  total.fresh += usage.prompt_tokens - cached;
  total.output += usage.completion_tokens;
  total.yuan += extra.cost_yuan ?? 0;
}

function numbers(tokens, first, usage, extra) {
  const seconds = extra.decode_ms ? extra.decode_ms / 1e3 : (performance.now() - first) / 1e3;
  const parts = [`${tokens} tokens, ${(tokens / Math.max(seconds, 1e-3)).toFixed(0)}/s`];
  if (usage) {
    const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
    parts.push(`prompt ${usage.prompt_tokens}, ${(100 * cached / Math.max(1, usage.prompt_tokens)).toFixed(0)} % cached`);
    parts.push(`conversation ${total.yuan.toFixed(6)} yuan`);
  }
  $("numbers").textContent = parts.join(" · ");
}

/* ---- the form ---- */

async function send() {
  const text = ask.value.trim();
  if (!text || running) return;
  ask.value = "";
  messages.push({ role: "user", content: text });
  make("div", talk, text, "turn user");
  const box = make("div", talk, undefined, "turn assistant");
  talk.scrollTop = talk.scrollHeight;
  $("send").hidden = true;
  $("stop").hidden = false;
  await answer(box);
  $("send").hidden = false;
  $("stop").hidden = true;
  refresh();
  ask.focus();
}

$("form").addEventListener("submit", e => { e.preventDefault(); send(); });
$("stop").addEventListener("click", () => running?.abort());
ask.addEventListener("keydown", e => {
  if (e.key === "Enter" && !e.shiftKey && !e.isComposing) { e.preventDefault(); send(); }
});
addEventListener("keydown", e => { if (e.key === "Escape") running?.abort(); });
$("fresh").addEventListener("click", () => {
  running?.abort();
  messages = [];
  talk.replaceChildren();
  $("numbers").textContent = "";
  Object.keys(total).forEach(k => { total[k] = 0; });
  ask.focus();
});
$("side-switch").addEventListener("click", () => {
  const open = $("side").classList.toggle("open");
  $("side-switch").setAttribute("aria-expanded", open);
});

/* ---- the panel ---- */

function count(n) {
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]])
    if (n >= size) return (n / size).toFixed(1) + " " + unit;
  return n.toFixed(0);
}

function show(state) {
  const rows = [["running", state.running], ["waiting", state.waiting],
    ["prompt tokens/s", count(state.prefill_tokens_per_s)], ["tokens/s", count(state.decode_tokens_per_s)],
    ["context", count(state.context)], ["prompt tokens", count(state.prompt_tokens)],
    ["of these cached", (100 * state.cached_tokens / Math.max(1, state.prompt_tokens)).toFixed(1) + " %"],
    ["generated", count(state.output_tokens)]];
  if (state.cache) rows.push(["cache in memory", count(state.cache.ram_bytes) + "B"],
    ["cache on disk", count(state.cache.disk_bytes) + "B"]);
  $("state").replaceChildren();
  for (const [name, value] of rows) {
    make("dt", $("state"), name);
    make("dd", $("state"), value);
  }
}

function drawExperts() {
  const canvas = $("experts"), rows = experts.counts, cols = rows[0]?.length ?? 0, size = 8;
  if (!cols) return;
  canvas.width = cols * size + 1;
  canvas.height = rows.length * size;
  const c = canvas.getContext("2d");
  rows.forEach((row, y) => {
    const mean = row.reduce((a, b) => a + b, 0) / cols || 1;
    row.forEach((n, x) => {
      const share = Math.min(1, n / mean / 3);
      c.fillStyle = `hsl(${210 - 190 * share} 85% 55% / ${0.08 + 0.92 * share})`;
      c.fillRect(x * size + (x >= experts.experts), y * size, size - 1, size - 1);
    });
  });
}

async function refresh() {
  try {
    const [state, load] = await Promise.all(["status", "experts"].map(async what => {
      const r = await fetch("/v1/longcat/" + what, { headers: headers() });
      if (!r.ok) throw new Error(r.status);
      return r.json();
    }));
    $("model").textContent = state.model;
    experts = load;
    show(state);
    drawExperts();
  } catch {
    $("state").replaceChildren();
    make("dt", $("state"), "not available (does the server need a key?)");
  }
}

$("key").addEventListener("change", refresh);
refresh();
setInterval(() => { if (!document.hidden) refresh(); }, 2000);
