/* The page: a conversation over /v1/chat/completions, and a panel over /v1/longcat/*. No library, no
 * resource from elsewhere; text of the model enters the document as text nodes only. An answer is drawn
 * line by line, each complete line once. Links, images and HTML in it stay text on purpose. */
"use strict";

const $ = id => document.getElementById(id);
const talk = $("talk"), ask = $("ask"), side = $("side"), tip = $("tip");
const touch = !matchMedia("(hover: hover)").matches; /* focus would bring up its keyboard */
let messages = [];         // the conversation as the API takes it
let running = null;        // AbortController of the present answer
let experts = null;        // what the model is made of: /v1/longcat/experts
let refused = false;       // the server wants another key
const total = { yuan: 0 }; // of the conversation
const pieces = new WeakMap(); // span -> what is known of its tokens

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

const isList = e => e?.localName === "ul" || e?.localName === "ol";
const LONG_LINE = 2000; /* characters after which an unfinished line is drawn for good */

class Answer {
  constructor(box) {
    this.box = box;
    this.text = "";
    this.ends = [];    // where each piece ends in text
    this.known = [];   // {routed, layers} of each piece, or undefined
    this.at = 0;       // text before this is drawn for good
    this.open = null;  // the element that the next line may go on in: p, blockquote, ul, ol, code
    this.inside = false; // this.at is within a line
    this.fence = "";   // what ends the code block, or ""
    this.drawn = [];   // [element, its number of children] before the unfinished line was drawn
    this.thoughts = null;
    this.due = 0;
  }
  add(text, longcat) {
    const routed = (longcat?.routed ?? []).filter(n => n > 0);
    this.text += text;
    this.ends.push(this.text.length);
    this.known.push(routed.length
      ? { routed: routed.reduce((a, b) => a + b) / routed.length, layers: longcat.routed_layers?.at(-1),
        tokens: routed.length }
      : undefined);
    this.draw();
  }
  think(text) {
    if (!this.thoughts) {
      const d = document.createElement("details");
      this.box.prepend(d);
      make("summary", d, "Reasoning");
      this.thoughts = make("div", d).appendChild(document.createTextNode(""));
    }
    this.thoughts.appendData(text);
    this.draw();
  }
  draw() { /* at most once a frame */
    this.due ||= requestAnimationFrame(() => this.flush(false));
  }
  flush(all) {
    cancelAnimationFrame(this.due);
    this.due = 0;
    const low = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 60;
    for (const [e, n] of this.drawn) while (e.childNodes.length > n) e.lastChild.remove();
    this.drawn = [];
    for (let end; (end = this.text.indexOf("\n", this.at)) >= 0;) {
      this.line(this.at, end);
      this.at = end + 1;
      this.inside = false;
    }
    const rest = this.text.length - this.at;
    if (rest && (all || rest > LONG_LINE)) {
      this.line(this.at, this.text.length);
      this.at = this.text.length;
      this.inside = true;
    } else if (rest) {
      const { open, fence } = this;
      this.drawn = [[this.box, this.box.childNodes.length]];
      if (open) this.drawn.push([open, open.childNodes.length]);
      if (isList(open) && open.lastChild) this.drawn.push([open.lastChild, open.lastChild.childNodes.length]);
      this.line(this.at, this.text.length);
      this.open = open;
      this.fence = fence;
    }
    if (low) talk.scrollTop = talk.scrollHeight;
  }
  /* Puts text[from..to) into parent, a span for each piece. */
  put(parent, from, to) {
    let lo = 0, hi = this.ends.length;
    while (lo < hi) { const mid = lo + hi >> 1; if (this.ends[mid] > from) hi = mid; else lo = mid + 1; }
    for (let i = lo; from < to; i++) {
      const end = Math.min(to, this.ends[i] ?? to), known = this.known[i];
      const span = make("span", parent, this.text.slice(from, end));
      if (known && experts) span.className = "r" + strength(known.routed);
      if (known) pieces.set(span, known);
      from = end;
    }
  }
  /* A block begins or goes on: the element for a line of it. The line break before it belongs to it. */
  block(name, from) {
    if (this.open?.localName !== name) this.open = make(name, this.box);
    else if (from > 0) this.put(this.open, from - 1, from);
    return this.open;
  }
  line(from, to) { /* Markdown by line, then code, bold and italic inside */
    const t = this.text.slice(from, to);
    let m;
    if (this.inside && this.open) {
      if (this.fence) this.put(this.open, from, to);
      else this.inline(isList(this.open) ? this.open.lastChild : this.open, from, to);
    } else if (this.fence) {
      m = /^\s*(`{3,}|~{3,})\s*$/.exec(t);
      if (m && m[1].startsWith(this.fence)) { this.fence = ""; this.open = null; return; }
      if (this.open.childNodes.length) this.put(this.open, from - 1, from);
      this.put(this.open, from, to);
    } else if ((m = /^\s*(`{3,}|~{3,})[^`]*$/.exec(t))) {
      this.fence = m[1];
      this.open = make("code", make("pre", this.box));
    } else if ((m = /^(#{1,6})\s+/.exec(t))) {
      this.open = null;
      this.inline(make(m[1].length < 3 ? "h3" : "h4", this.box), from + m[0].length, to);
    } else if (/^ {0,3}([-*_])( *\1){2,}\s*$/.test(t)) {
      this.open = null;
      make("hr", this.box);
    } else if ((m = /^\s*([-*+]|(\d{1,9})[.)])\s+/.exec(t))) {
      const kind = m[2] ? "ol" : "ul";
      if (this.open?.localName !== kind) {
        this.open = make(kind, this.box);
        if (m[2]) this.open.start = +m[2];
      }
      this.inline(make("li", this.open), from + m[0].length, to);
    } else if (/^\s*\|/.test(t)) { /* a table stays as it was written, in columns */
      if (this.open?.parentNode.className === "table") this.put(this.open, from - 1, from);
      else this.open = make("code", make("pre", this.box, undefined, "table"));
      this.put(this.open, from, to);
    } else if ((m = /^>\s?/.exec(t))) {
      this.inline(this.block("blockquote", from), from + m[0].length, to);
    } else if (t.trim()) {
      if (isList(this.open) && /^\s/.test(t)) { /* goes on in the list's item */
        const item = this.open.lastChild;
        this.put(item, from - 1, from);
        this.inline(item, from, to);
      } else {
        this.inline(this.block("p", from), from, to);
      }
    } else if (!isList(this.open)) {
      this.open = null;
    }
  }
  inline(parent, from, to) {
    const marks = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*/g;
    const line = this.text.slice(from, to);
    let at = 0;
    for (let m; (m = marks.exec(line));) {
      this.put(parent, from + at, from + m.index);
      const width = m[2] !== undefined ? 2 : 1;
      const e = make(m[1] !== undefined ? "code" : m[2] !== undefined ? "strong" : "em", parent);
      this.put(e, from + m.index + width, from + m.index + m[0].length - width);
      at = m.index + m[0].length;
    }
    this.put(parent, from + at, to);
  }
}

/* Strength of the colour, 0 to 7: the share of the chosen experts that are real ones, from a quarter on. */
function strength(routed) {
  const share = routed / experts.per_token;
  return Math.max(0, Math.min(7, Math.round((share - .25) / .75 * 7)));
}

const active = routed => experts.active_base + routed * experts.active_per_expert;

function legend() {
  $("least").textContent = count(active(experts.per_token * .25));
  $("most").textContent = count(active(experts.per_token));
}

/* ---- the numbers of a piece: under the mouse, a finger, or the arrow keys ---- */

let here = null; /* the piece whose numbers show */

function point(span) {
  here?.classList.remove("here");
  here = span;
  tip.hidden = !span;
  if (!span) return;
  const { routed, layers, tokens } = pieces.get(span);
  span.classList.add("here");
  tip.replaceChildren();
  make("p", tip, `${count(active(routed))} active parameters`);
  make("p", tip, `${routed.toFixed(2)} of ${experts.per_token} chosen experts were real, on average over ` +
    `${experts.counts.length} layers${tokens > 1 ? ` and ${tokens} tokens` : ""}`);
  if (layers) {
    make("p", tip, `Real experts by layer${tokens > 1 ? " (last token)" : ""}: ${layers.join(" ")}`);
    const bars = make("div", tip, undefined, "layers");
    for (const n of layers) make("span", bars).style.height = 100 * n / experts.per_token + "%";
  }
  const at = span.getClientRects()[0], size = tip.getBoundingClientRect();
  if (!at) return point(null);
  const top = at.top - size.height - 6;
  tip.style.left = Math.max(8, Math.min(at.left, innerWidth - size.width - 8)) + "px";
  tip.style.top = (top < 8 ? at.bottom + 6 : top) + "px";
}

const known = e => (experts && pieces.has(e) ? e : null);
talk.addEventListener("pointerover", e => { if (e.pointerType === "mouse") point(known(e.target)); });
talk.addEventListener("pointerleave", e => { if (e.pointerType === "mouse") point(null); });
talk.addEventListener("click", e => { if (touch) point(e.target === here ? null : known(e.target)); });
talk.addEventListener("scroll", () => { if (here && !running) point(null); });
talk.addEventListener("blur", () => point(null));
talk.addEventListener("keydown", e => {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
  if (!by || e.target !== talk) return;
  const all = [...talk.querySelectorAll("[class^=r]")], from = all.indexOf(here);
  let at = from < 0 ? (by > 0 ? 0 : all.length - 1) : from + by;
  while (all[at] && !all[at].textContent.trim()) at += by; /* line breaks have no place to point at */
  const next = all[at];
  if (!next) return;
  e.preventDefault();
  next.scrollIntoView({ block: "nearest" });
  setTimeout(() => { /* behind the scroll event */
    point(next);
    $("say").textContent = next.textContent + ": " + tip.firstChild.textContent;
  }, 50);
});

/* ---- the wire ---- */

/* Calls take(data) for each frame of a stream of server-sent events. */
async function frames(response, take) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts)
      for (const line of part.split("\n"))
        if (line.startsWith("data: ") && line !== "data: [DONE]") take(JSON.parse(line.slice(6)));
  }
}

function failure(error, status) {
  const e = new Error(error?.message ?? "HTTP " + status);
  e.code = error?.code;
  e.status = status;
  return e;
}

function wish() {
  const body = { model: $("model").textContent || "longcat", messages, stream: true,
    stream_options: { include_usage: true }, longcat_routed: true };
  if ($("temperature").value) body.temperature = +$("temperature").value;
  if ($("longest").value) body.max_tokens = +$("longest").value;
  if ($("think").checked) body.thinking = { type: "enabled" };
  return body;
}

/* Gives the answer to messages; what of it came, how it ended and what it cost. */
async function answer(a, abort) {
  const got = { tokens: 0, routed: 0, known: 0, first: 0, finish: null, usage: null, extra: {}, error: null };
  const take = chunk => {
    if (chunk.error) throw failure(chunk.error);
    const choice = chunk.choices?.[0], delta = choice?.delta ?? {};
    if (delta.reasoning_content || delta.content) {
      got.first ||= performance.now();
      got.tokens += chunk.longcat?.routed?.length || 1;
      for (const n of chunk.longcat?.routed ?? []) if (n > 0) { got.routed += n; got.known++; }
      a.box.classList.remove("wait");
    }
    if (delta.reasoning_content) a.think(delta.reasoning_content);
    if (delta.content) a.add(delta.content, chunk.longcat);
    if (choice?.finish_reason) got.finish = choice.finish_reason;
    if (chunk.usage) { got.usage = chunk.usage; got.extra = chunk.longcat ?? {}; }
    tell(got);
  };
  try {
    const r = await fetch("/v1/chat/completions",
      { method: "POST", headers: headers(), body: JSON.stringify(wish()), signal: abort.signal });
    if (!r.ok) throw failure((await r.json().catch(() => ({}))).error, r.status);
    await frames(r, take);
  } catch (e) {
    abort.abort(); /* the stream ends with an error in it */
    if (e.name === "AbortError") got.finish = "stopped";
    else got.error = e.name === "TypeError" ? new Error("The server can't be reached.") : e;
  }
  return got;
}

let told = 0;
function tell(got) { /* at most once a frame */
  told ||= requestAnimationFrame(() => { told = 0; numbers(got); });
}

function numbers(got) {
  cancelAnimationFrame(told);
  told = 0;
  const { tokens, first, usage, extra } = got, parts = [];
  if (tokens) {
    const seconds = extra.decode_ms ? extra.decode_ms / 1e3 : (performance.now() - first) / 1e3;
    parts.push(`${tokens} tokens`, `${(tokens / Math.max(seconds, 1e-3)).toFixed(0)} tokens/s`);
    if (got.known && experts) parts.push(`${count(active(got.routed / got.known))} active parameters`);
  }
  if (usage) {
    const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
    const share = (100 * cached / Math.max(1, usage.prompt_tokens)).toFixed(0);
    parts.push(`prompt ${usage.prompt_tokens}, ${share} % cached`, `conversation ${total.yuan.toFixed(6)} yuan`);
  }
  $("numbers").textContent = parts.join(" · ");
}

/* ---- the form ---- */

function welcome() {
  const box = make("div", talk, undefined, "welcome");
  make("h2", box, "Say something");
  make("p", box, "Each piece of the answer is coloured by the parameters that the model used for it: pale where its " +
    "experts were mostly zero-computation ones, strong where all were real. " +
    (touch ? "Touch a piece" : "Rest on a piece, or go through them with the arrow keys,") +
    " to see the numbers.", "hint");
  if (!touch) make("p", box, "Enter sends, Shift+Enter breaks the line, Escape stops.", "hint");
}

function busy(on) {
  const held = document.activeElement === $("send") || document.activeElement === $("stop");
  $("send").hidden = on;
  $("stop").hidden = !on;
  talk.setAttribute("aria-busy", on);
  $("say").textContent = on ? "Answering" : "";
  if (held) (on ? $("stop") : $("send")).focus();
}

function grow() {
  ask.style.height = "auto";
  ask.style.height = ask.scrollHeight + 2 + "px";
}

function wrong(box, error) {
  const full = error.code === "context_length_exceeded";
  const p = make("p", box, error.message + (full ? " New starts over." : ""), "error");
  p.setAttribute("role", "alert");
  if (error.status === 401) { refused = true; refresh(); openSide(true, $("key")); }
}

async function send() {
  const text = ask.value.trim();
  if (!text || running) return;
  const abort = running = new AbortController(), mine = messages;
  ask.value = "";
  grow();
  point(null);
  talk.querySelector(".welcome")?.remove();
  mine.push({ role: "user", content: text });
  const user = make("article", talk, text, "turn user"), box = make("article", talk, undefined, "turn assistant wait");
  user.setAttribute("aria-label", "You");
  box.setAttribute("aria-label", "Answer");
  talk.scrollTop = talk.scrollHeight;
  busy(true);
  const a = new Answer(box), got = await answer(a, abort);
  if (mine !== messages) return; /* New was pressed meanwhile */
  running = null;
  a.flush(true);
  box.classList.remove("wait");
  $("legend").hidden = !experts || !talk.querySelector("[class^=r]");
  if (a.text) mine.push({ role: "assistant", content: a.text });
  else mine.pop();
  if (got.usage) total.yuan += got.extra.cost_yuan ?? 0;
  numbers(got);
  busy(false);
  if (got.error) {
    if (!a.text) { user.classList.add("failed"); ask.value ||= text; grow(); }
    wrong(box, got.error);
  } else if (got.finish === "length") {
    make("p", box, "Cut: the longest answer or the end of the context was reached.", "note");
  } else if (got.finish === "stopped") {
    make("p", box, "Stopped.", "note");
  } else if (!a.text) {
    make("p", box, "The model ended its answer at once.", "note");
  }
  $("say").textContent = got.error ? "" : `Answer of ${got.tokens} tokens`;
  talk.scrollTop = talk.scrollHeight;
  refresh();
  if (!touch && (document.activeElement === $("send") || document.activeElement === document.body)) ask.focus();
}

function openSide(open, focus) {
  side.classList.toggle("open", open);
  $("side-switch").setAttribute("aria-expanded", open);
  if (open) { refresh(); (focus ?? (touch ? null : $("temperature")))?.focus(); }
}

$("form").addEventListener("submit", e => { e.preventDefault(); send(); });
$("settings").addEventListener("submit", e => { e.preventDefault(); openSide(false); ask.focus(); });
$("stop").addEventListener("click", () => running?.abort());
ask.addEventListener("input", grow);
ask.addEventListener("keydown", e => {
  if (e.key === "Enter" && !e.shiftKey && !e.isComposing) { e.preventDefault(); send(); }
});
addEventListener("keydown", e => {
  if (e.key !== "Escape") return;
  if (side.classList.contains("open")) { openSide(false); $("side-switch").focus(); }
  else if (here) point(null);
  else running?.abort();
});
$("fresh").addEventListener("click", () => {
  running?.abort();
  running = null;
  messages = [];
  total.yuan = 0;
  point(null);
  talk.replaceChildren();
  welcome();
  busy(false);
  $("legend").hidden = true;
  $("numbers").textContent = "";
  if (!touch) ask.focus();
});
$("side-switch").addEventListener("click", () => openSide(!side.classList.contains("open")));
document.querySelector("main").addEventListener("click", () => openSide(false));

/* ---- the panel ---- */

function count(n) {
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]])
    if (n >= size) return (n / size).toFixed(n / size < 10 ? 2 : 1) + " " + unit;
  return n.toFixed(0);
}

const bytes = n => count(n) + (n < 1e3 ? " B" : "B");

function show(state) {
  const rows = [["running", state.running], ["waiting", state.waiting],
    ["prompt tokens/s", count(state.prefill_tokens_per_s)], ["tokens/s", count(state.decode_tokens_per_s)],
    ["context", state.context.toLocaleString("en")], ["prompt tokens", count(state.prompt_tokens)],
    ["of these cached", (100 * state.cached_tokens / Math.max(1, state.prompt_tokens)).toFixed(1) + " %"],
    ["generated", count(state.output_tokens)]];
  if (state.cache) rows.push(["cache in memory", bytes(state.cache.ram_bytes)],
    ["cache on disk", bytes(state.cache.disk_bytes)]);
  $("state").replaceChildren();
  for (const [name, value] of rows) {
    make("dt", $("state"), name);
    make("dd", $("state"), value);
  }
}

function drawExperts() {
  const canvas = $("experts"), rows = experts.counts, cols = rows[0]?.length ?? 0;
  const wide = Math.round(canvas.clientWidth * devicePixelRatio), gap = Math.round(4 * devicePixelRatio);
  if (!cols || !wide) return;
  const cell = (wide - gap) / cols, tall = Math.max(3, Math.min(12 * devicePixelRatio, Math.ceil(cell)));
  const line = cell > 4 ? 1 : 0, heat = getComputedStyle(document.documentElement).getPropertyValue("--heat");
  const c = canvas.getContext("2d");
  let most = 0;
  canvas.width = wide;
  canvas.height = rows.length * (tall + 1);
  rows.forEach((row, y) => {
    const mean = row.reduce((a, b) => a + b, 0) / cols || 1;
    row.forEach((n, x) => {
      most = Math.max(most, n / mean);
      c.fillStyle = `hsl(${heat} / ${.06 + .94 * Math.min(1, n / mean / 3)})`;
      c.fillRect(x * cell + (x >= experts.experts ? gap : 0), y * (tall + 1), cell - line, tall);
    });
  });
  canvas.setAttribute("aria-label", `Expert load: ${rows.length} layers of ${experts.experts} experts and ` +
    `${experts.zero_experts} zero-computation experts; the busiest has ${most.toFixed(1)} times its row's mean`);
}

async function get(what) {
  const r = await fetch("/v1/longcat/" + what, { headers: headers() });
  if (!r.ok) throw failure(null, r.status);
  return r.json();
}

async function refresh() {
  try {
    const [state, load] = await Promise.all([get("status"), experts && !side.clientWidth ? experts : get("experts")]);
    refused = false;
    $("model").textContent = state.model;
    document.title = "longcat " + state.model;
    experts = load;
    legend();
    show(state);
    drawExperts();
  } catch (e) {
    refused = e.status === 401;
    $("state").replaceChildren();
    make("dt", $("state"), refused ? "This server needs an API key." : "The server can't be reached.", "error");
  }
}

$("key").value = sessionStorage.getItem("key") ?? "";
$("key").addEventListener("change", () => {
  sessionStorage.setItem("key", $("key").value.trim()); /* until the tab is closed */
  refresh();
});
welcome();
refresh();
setInterval(() => { if (!document.hidden && !refused) refresh(); }, 2000);
if (!touch) ask.focus();
