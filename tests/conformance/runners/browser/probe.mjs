// Proves expected-failures.json: whatever keeps a request from being answered, a page is told the same, so that nothing in it
// can tell one from another. `node probe.mjs FOLDER`; fails when a page is told more. See README.md.

import { once } from "node:events";
import { createServer } from "node:http";
import { join } from "node:path";
import { open } from "./chromium.mjs";

const listen = async (server) => (await once(server.listen(0, "127.0.0.1"), "listening"), server.address().port);
// Answers, but without the headers of CORS.
const silent = createServer((_, response) => response.end("[]"));
const port = await listen(silent);
const closed = createServer();
const free = await listen(closed);
closed.close();

const { page, close } = await open(join(import.meta.dirname, "page.html"), process.argv[2]);
try {
  // What only the driver of the browser is told.
  const causes = new Map();
  page.on("requestfailed", (request) => causes.set(request.url(), request.failure().errorText));
  const told = new Set();
  for (const [what, url] of [
    ["nothing listens there", `http://127.0.0.1:${free}/`],
    ["nothing listens there, IPv6", `http://[::1]:${free}/`],
    ["a port that browsers block", "http://127.0.0.1:1/"],
    ["no such host", "http://no-such-host.invalid:8500/"],
    ["https to a server of http", `https://127.0.0.1:${port}/`],
    ["answered, but not for this page", `http://127.0.0.1:${port}/`],
  ]) {
    const error = await page.evaluate((url) => fetch(url).then(String, String), url);
    console.log(`${what}: ${error} (${causes.get(url)})`);
    told.add(error);
  }
  if (told.size !== 1) throw new Error("a page is told more than it was: see expected-failures.json");
} finally {
  await close();
  silent.close();
}
