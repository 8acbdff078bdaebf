// What a browser does with the pages of a real agent: see TestBrowser. Whatever is not as
// it should be throws, and the test fails.
import { createRequire } from "node:module";
import { strict as assert } from "node:assert";
import path from "node:path";

const { PAGES, HAND, OPERATOR, READER, ODDEST, MODULES, PICTURES } = process.env;
const require = createRequire(path.join(MODULES, "node_modules", "x.js"));
const { chromium } = require("playwright-core");
const { AxeBuilder } = require("@axe-core/playwright");

const patience = Number(process.env.PATIENCE || 120_000); // milliseconds, of each wait
const hand = async (what) => { const r = await fetch(`${HAND}/${what}`, { method: "POST" }); assert.ok(r.ok, what); };
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

// enter opens a browser's window and signs in.
const enter = async (token, options = {}) => {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(patience);
  page.on("pageerror", (e) => { throw e; });
  page.on("console", (m) => { if (m.type() === "error" && /Content Security Policy|SyntaxError|TypeError/.test(m.text())) throw new Error(m.text()); });
  page.on("request", (r) => { const u = new URL(r.url()); if (u.protocol !== "data:" && u.protocol !== "blob:") assert.equal(u.origin, new URL(PAGES).origin, "a page asks elsewhere"); });
  await page.goto(`${PAGES}/ui/`);
  await page.fill("#secret", token);
  await page.press("#secret", "Enter");
  await page.waitForURL((u) => u.pathname === "/ui/");
  return { context, page };
};

// judge holds a page to WCAG as far as a program can, to its width, and takes its picture.
const judge = async (page, name) => {
  const found = await new AxeBuilder({ page }).withTags(["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]).analyze();
  const serious = found.violations.filter((v) => v.impact === "serious" || v.impact === "critical");
  assert.deepEqual(serious.map((v) => [v.id, v.nodes.map((n) => n.html)]), [], `${name} at ${page.url()}`);
  const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(over, 0, `${name} is wider than the window by ${over}`);
  await page.screenshot({ path: path.join(PICTURES, `${name}.png`), fullPage: true });
};

// reach moves the focus by the Tab key alone until it is on what is asked for.
const reach = async (page, selector) => {
  for (let i = 0; i < 200; i++) {
    await page.keyboard.press("Tab");
    if (await page.evaluate((s) => document.activeElement?.matches(s), selector)) return;
  }
  throw new Error(`the keyboard does not reach ${selector} at ${page.url()}`);
};

const { context, page } = await enter(OPERATOR);

// New link: two databases at once, one with the oddest name that there is.
await page.goto(`${PAGES}/ui/new`);
await judge(page, "new-1-databases");
for (const name of ["shop", ODDEST]) await page.locator(`input[name=database][value="${CSS_escape(name)}"]`).check();
await page.locator("form.form:not(.card) button.primary").click();
await judge(page, "new-2-peer");
await page.locator("input[name=peer][value=b]").check();
await page.getByRole("button", { name: "Next: check the requirements" }).click();
await judge(page, "new-3-requirements");
assert.ok((await page.content()).includes("network_measured"), "the network was measured");
for (const box of await page.locator("input[name=accept]").all()) await box.check();
await page.getByRole("button", { name: "Look again" }).click();
await page.getByRole("button", { name: "Next: options" }).click();
await judge(page, "new-4-options");
await page.locator("#name-0").fill("shop");
await page.locator("#name-1").fill("oddest");
const order = await page.locator("fieldset label[for=name-0]").innerText();
if (!order.includes("shop")) { await page.locator("#name-0").fill("oddest"); await page.locator("#name-1").fill("shop"); }
await page.getByRole("button", { name: "Next: summary" }).click();
await page.locator("details.script summary").click();
assert.ok((await page.locator("details.script").innerText()).includes("twinspan link create shop --database=shop --peer=b"));
await judge(page, "new-5-summary");
await page.getByRole("button", { name: /Make 2 links/ }).click();
await page.waitForURL((u) => u.pathname === "/ui/new/progress");
await judge(page, "new-6-progress");
await page.getByText("In step: every transaction").waitFor(); // by itself, for the page is live
await judge(page, "new-7-result");

// Every page, wide and narrow, light and dark, with motion and without, and without scripts.
const paths = ["", "links/shop", "links/oddest", "links/shop/audit", "links/shop/verify", "links/shop/roles", "links/shop/uncarried", "links/shop/lost", "links/shop/settings", "links/shop/delete",
  "databases", "instance", "members", "usage", "backups", "peers", "network?peer=b&database=shop", "migrate", "migrate?link=shop", "problems", "problems/peer_unreachable", "events", "links/shop/failover?step=plan&type=planned"];
const named = (p) => (p || "overview").replace(/[^a-z0-9]+/gi, "-");
for (const p of paths) { await page.goto(`${PAGES}/ui/${p}`); await page.locator("h1").waitFor(); await judge(page, `${named(p)}-wide`); }
for (const [kind, options] of [["dark-narrow", { viewport: { width: 360, height: 740 }, colorScheme: "dark", reducedMotion: "reduce" }], ["without-scripts", { javaScriptEnabled: false }]]) {
  const other = await enter(OPERATOR, options);
  for (const p of paths) {
    await other.page.goto(`${PAGES}/ui/${p}`);
    if (kind === "without-scripts") assert.ok((await other.page.locator("h1").count()) > 0, `${p} is empty without scripts`);
    else await judge(other.page, `${named(p)}-${kind}`);
  }
  await other.context.close();
}

// A reader looks, and is offered nothing that he may not do.
const reader = await enter(READER);
await reader.page.goto(`${PAGES}/ui/links/shop`);
assert.equal(await reader.page.getByRole("link", { name: "Fail over…" }).count(), 0);
assert.equal(await reader.page.getByRole("button", { name: "Suspend" }).count(), 0);
await reader.context.close();

// Fail over by keyboard alone, from the overview to the end.
await page.goto(`${PAGES}/ui/`);
await reach(page, 'main a[href="/ui/links/shop"]');
await page.keyboard.press("Enter");
await page.waitForURL((u) => u.pathname === "/ui/links/shop");
await reach(page, 'a[href="/ui/links/shop/failover"]');
await page.keyboard.press("Enter");
await page.waitForURL((u) => u.pathname.endsWith("/failover"));
await reach(page, "form.form button[type=submit]");
await page.keyboard.press("Enter");
await page.waitForURL((u) => u.searchParams.get("step") === "plan");
await reach(page, 'a.primary[href*="step=confirm"]');
await page.keyboard.press("Enter");
await page.waitForURL((u) => u.searchParams.get("step") === "confirm");
await judge(page, "failover-3-confirm");
await reach(page, "form.card button[type=submit]");
await page.keyboard.press("Enter");
await page.waitForURL((u) => u.pathname.endsWith("/steps"));
await page.getByText("b is the primary.").waitFor();
await judge(page, "failover-4-steps");

// The agent is killed under an open page: the page says so, and goes on by itself.
await page.goto(`${PAGES}/ui/links/shop`);
await page.locator(".stations").waitFor();
await hand("kill/a");
await page.locator(".away").waitFor({ state: "visible" });
await judge(page, "away");
await hand("start/a");
await page.locator(".away").waitFor({ state: "hidden" });
assert.ok(page.url().endsWith("/ui/links/shop"), "the session outlived the agent");

// The token ends in the middle.
await hand("revoke");
await page.waitForURL((u) => u.pathname === "/ui/sign-in");
await context.close();
await browser.close();

function CSS_escape(text) { return text.replace(/["\\]/g, "\\$&"); }
