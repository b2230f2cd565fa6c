// Opens a page in headless Chromium, for the runner, the tests and the probe.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { extname, join, resolve } from "node:path";

const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".wasm": "application/wasm" };

// Opens a page in headless Chromium. `folder` has playwright-core.
export async function visit(url, folder, args = []) {
  const { chromium } = createRequire(resolve(folder, "package.json"))("playwright-core");
  const executablePath = process.env.CHROMIUM_BIN ?? "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, args });
  try {
    const page = await browser.newPage();
    page.on("pageerror", (error) => console.error(error));
    await page.goto(url);
    return { browser, page, close: () => browser.close() };
  } catch (error) {
    await browser.close();
    throw error;
  }
}

// Serves the page `html` and the files of `folder` on a free port of 127.0.0.1, and opens the page.
//
// Playwright's `page.route` does not work here: with it, Playwright answers CORS preflights instead
// of the agent.
export async function open(html, folder) {
  const server = createServer(async ({ url }, response) => {
    const file = url === "/" ? html : join(folder, url);
    const content = await readFile(file).catch(() => undefined);
    response.writeHead(content ? 200 : 404, { "Content-Type": TYPES[extname(file)] ?? "text/plain" }).end(content);
  });
  const stop = () => {
    server.closeAllConnections();
    server.close();
  };
  try {
    await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
    const { browser, page } = await visit(`http://127.0.0.1:${server.address().port}`, folder);
    return { browser, page, close: () => browser.close().finally(stop) };
  } catch (error) {
    stop();
    throw error;
  }
}
