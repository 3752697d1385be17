// The page in Chromium, desktop and phone. usage: node page.mjs CHROMIUM PORT KEYED-PORT KEY [FOLDER-FOR-SCREENSHOTS]
// PORT serves without keys; KEYED-PORT wants KEY and has a context of 128 tokens.
import assert from "node:assert";
import { createRequire } from "node:module";

const [program, port, keyedPort, key, folder] = process.argv.slice(2);
const { chromium } = (await import(createRequire(process.cwd() + "/").resolve("playwright-core"))).default;
const browser = await chromium.launch({ executablePath: program, args: ["--no-sandbox"] });
const phone = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, colorScheme: "dark" };
const wrong = []; // console errors and what else must not happen; a refused call is one, and is expected once

async function open(at, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(10000);
  page.on("console", m => { if (["error", "warning"].includes(m.type())) wrong.push(m.text()); });
  page.on("pageerror", e => wrong.push(e.message));
  page.on("dialog", d => { wrong.push("dialog: " + d.message()); d.dismiss(); });
  page.on("request", r => { if (!r.url().startsWith(`http://127.0.0.1:${at}/`) && !r.url().startsWith("data:")) wrong.push(r.url()); });
  await page.addInitScript(() => document.addEventListener("securitypolicyviolation",
    e => console.error("CSP: " + e.violatedDirective + " " + e.blockedURI)));
  await page.goto(`http://127.0.0.1:${at}/`);
  if (at === port) await page.waitForFunction(() => document.getElementById("model").textContent);
  return page;
}

const ended = page => page.waitForSelector("#send:not([hidden])");
const fits = async page => assert(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth &&
  document.getElementById("talk").scrollWidth <= document.getElementById("talk").clientWidth), "horizontal scroll");
const focused = page => page.evaluate(() => document.activeElement.id);
const picture = (page, name) => folder && page.screenshot({ path: `${folder}/${name}.png` });

/* Answers in place of the server's: text in pieces of n characters. */
const stream = (text, n) => text.match(new RegExp(`[^]{1,${n}}`, "g")).map((t, i) => `data: ${JSON.stringify({
  choices: [{ index: 0, delta: { content: t } }], longcat: { routed: [i % 4 + 1] } })}\n\n`).join("") + "data: [DONE]\n\n";
const hostile = `# T <script>alert(1)</script>

<img src=x onerror=alert(2)> [link](javascript:alert(3)) **bold** and \`code\` </script><script>alert(4)</script>
- item
1. first
\`\`\`
<b>int</b> ${"x".repeat(300)}
\`\`\`
2. second

${"y".repeat(5000)}`;

const checks = {
  async "a message, coloured pieces, numbers by keyboard"() {
    const page = await open(port);
    assert.equal(await focused(page), "ask");
    await page.keyboard.type("Add two numbers");
    await page.keyboard.press("Enter");
    await ended(page);
    assert(await page.locator(".assistant [class^=r]").count() > 0, "no coloured piece");
    assert.match(await page.textContent("#numbers"), /\d tokens\/s.*active parameters.*cached.*yuan/);
    await page.keyboard.press("Shift+Tab");
    assert.equal(await focused(page), "talk");
    await page.keyboard.press("ArrowRight");
    await page.waitForSelector("#tip:not([hidden])");
    assert.match(await page.textContent("#tip"), /active parameters.*Real experts by layer.*: \d/);
    await picture(page, "tip");
    await page.keyboard.press("Escape");
    assert(await page.isHidden("#tip"));
    const order = [];
    for (let i = 0; i < 6; i++) {
      await page.keyboard.press("Tab");
      order.push(await focused(page));
    }
    assert.deepEqual(order, ["ask", "send", "temperature", "longest", "think", "key"]);
    await page.locator(".assistant [class^=r]").filter({ hasText: /\S/ }).first().hover();
    assert(await page.isVisible("#tip"));
    await page.click("#fresh");
    assert.equal(await page.locator(".turn").count(), 0);
    await fits(page);
  },
  async "stop by button and by Escape"() {
    const page = await open(port);
    await page.route("**/chat/completions", r => r.continue({ postData: JSON.stringify(
      { ...r.request().postDataJSON(), max_tokens: 20000, logit_bias: { 2: -100 } }) })); /* the model doesn't end it */
    for (const stop of [() => page.click("#stop"), () => page.keyboard.press("Escape")]) {
      await page.fill("#ask", "Go on");
      await page.press("#ask", "Enter");
      await page.locator(".assistant").last().locator("[class^=r]").nth(20).waitFor({ state: "attached" });
      await stop();
      await ended(page);
      assert.equal(await page.locator(".assistant").last().locator(".note").textContent(), "Stopped.");
    }
    await page.waitForFunction(async () => (await (await fetch("/v1/longcat/status")).json()).running === 0);
  },
  async "hostile text on a phone"() {
    const page = await open(port, phone);
    let body = stream(hostile, 3);
    await page.route("**/chat/completions", r => r.fulfill({ status: 200, contentType: "text/event-stream", body }));
    await page.fill("#ask", "<script>alert(5)</script>" + "z".repeat(400));
    await page.tap("#send");
    await ended(page);
    const of = i => page.locator(".assistant").nth(i).evaluate(e => e.innerHTML.replace(/<\/?span[^>]*>/g, ""));
    assert.equal(await page.locator(".turn :is(script, img, a, b)").count(), 0);
    assert.equal(await page.locator(".assistant :is(h3, strong, code, pre, li)").count(), 8);
    await fits(page);
    body = stream(hostile, 1000);
    await page.fill("#ask", "again");
    await page.tap("#send");
    await ended(page);
    const text = html => html.replace(/y+/g, "y");
    assert.equal(text(await of(1)), text(await of(0)), "the drawing depends on the pieces");
    await page.tap("#side-switch");
    assert.equal(await page.getAttribute("#side-switch", "aria-expanded"), "true");
    await fits(page);
    await page.keyboard.press("Escape");
    assert(await page.isHidden("#side"));
    assert(await page.locator("button:visible").evaluateAll(all => all.every(e => e.offsetHeight >= 38)), "small buttons");
  },
  async "a key, then a full context"() {
    const page = await open(keyedPort);
    await page.waitForSelector("dt.error");
    await page.fill("#ask", "Hi");
    await page.press("#ask", "Enter");
    assert.match(await page.textContent(".turn .error"), /key/);
    assert.equal(await page.inputValue("#ask"), "Hi"); /* to be sent again */
    assert.equal(await focused(page), "key");
    assert(wrong.length && wrong.every(w => w.includes("401")), wrong.join("\n"));
    await page.keyboard.type(key);
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.getElementById("model").textContent);
    wrong.length = 0;
    await page.fill("#longest", "4");
    await page.press("#ask", "Enter");
    await page.waitForSelector(".assistant:last-child [class^=r]");
    await ended(page);
    await page.fill("#ask", "many words ".repeat(200));
    await page.press("#ask", "Enter");
    const second = page.locator(".turn .error").nth(1); /* the first one is the missing key's */
    assert.match(await second.textContent(), /maximum context length.*New starts over/);
    assert(wrong.every(w => w.includes("400")), wrong.join("\n"));
    wrong.length = 0;
  },
};

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    assert.deepEqual(wrong, []);
    console.log("ok: " + name);
  } catch (e) {
    failed++;
    console.log(`failed: ${name}: ${e.message}\n${e.stack.split("\n").find(l => l.includes("page.mjs"))}\n${wrong.join("\n")}`);
  }
  wrong.length = 0;
  for (const c of browser.contexts()) await c.close();
}
await browser.close();
process.exit(failed ? 1 : 0);
