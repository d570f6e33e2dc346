// Does in a browser what it reads, one JSON array a line: [verb, ...arguments].
// Each line is answered by one: {"ok": value} or {"error": text}.
//
//   node drive.mjs TOOLS BASE_URL SCREENSHOTS
//
// Selectors are Playwright's: css, `text=..`, `role=button[name="Hang up"]`.

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";

const [tools, base, screenshots] = process.argv.slice(2).map((value, index) => (index === 1 ? value : resolve(value)));
const home = join(tools, "browser");
const require = createRequire(join(home, "package.json"));
const { chromium } = require("playwright-core");

const own = join(home, "chromium");
const PATIENCE_MS = 20_000;

// Its own fonts, wherever the folder is by now.
const fonts = join(tmpdir(), `fonts-${process.pid}.conf`);
writeFileSync(fonts, `<fontconfig><dir>${join(own, "fonts")}</dir><dir>/usr/share/fonts</dir></fontconfig>`);

const browser = await chromium.launch({
  executablePath: process.env.CAPCONDUIT_CHROMIUM || join(own, "chromium"),
  // What it shows is ours, and a sandbox needs rights that a container may not have.
  args: ["--no-sandbox"],
  env: { ...process.env, LD_LIBRARY_PATH: join(own, "lib"), FONTCONFIG_FILE: fonts },
});
const context = await browser.newContext({
  baseURL: base,
  viewport: { width: 1440, height: 900 },
  // Whatever this machine speaks.
  locale: "en-GB",
  timezoneId: "Europe/London",
});
context.setDefaultTimeout(PATIENCE_MS);
const page = await context.newPage();

/** What the page did that it must not do. */
const complaints = [];
page.on("pageerror", (error) => complaints.push(`error: ${error.message}`));
page.on("console", (message) => {
  if (message.text().includes("Content Security Policy")) complaints.push(message.text());
});
page.on("request", (request) => {
  if (!request.url().startsWith(base)) complaints.push(`asked outside: ${request.url()}`);
});

const verbs = {
  open: (path) => page.goto(path).then(() => undefined),
  click: (selector) => page.click(selector),
  fill: (selector, text) => page.fill(selector, text),
  press: (key) => page.keyboard.press(key),
  /** Waits until it is shown. */
  see: (selector) => page.waitForSelector(selector, { state: "visible" }).then(() => undefined),
  /** Waits until nothing like it is shown. */
  miss: (selector) => page.waitForSelector(selector, { state: "hidden" }).then(() => undefined),
  text: (selector) => page.innerText(selector),
  count: (selector) => page.locator(selector).count(),
  /** The text of what has the focus. */
  focused: () => page.evaluate(() => document.activeElement?.innerText ?? ""),
  /** How many pixels of the page are beyond the right edge of the screen. */
  overflow: () => page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth),
  size: (width, height) => page.setViewportSize({ width, height }),
  scheme: (colorScheme) => page.emulateMedia({ colorScheme }),
  picture: (name) => page.screenshot({ path: join(screenshots, `${name}.png`) }).then(() => undefined),
  complaints: () => complaints,
  /** What is inaccessible, as far as axe can tell: serious and critical findings. */
  async inaccessible() {
    await page.evaluate(readFileSync(require.resolve("axe-core"), "utf8"));
    const { violations } = await page.evaluate(() => globalThis.axe.run(document));
    return violations
      .filter(({ impact }) => impact === "serious" || impact === "critical")
      .flatMap(({ id, help, nodes }) => nodes.map((node) => `${id}: ${help}: ${node.html}`));
  },
};

const answer = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
answer({ ok: browser.version() });
for await (const line of createInterface({ input: process.stdin })) {
  const [verb, ...rest] = JSON.parse(line);
  try {
    answer({ ok: (await verbs[verb](...rest)) ?? null });
  } catch (error) {
    await page.screenshot({ path: join(screenshots, "failure.png") }).catch(() => undefined);
    answer({ error: `${verb} ${JSON.stringify(rest)}: ${error.message}` });
  }
}
await browser.close();
