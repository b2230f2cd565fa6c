// Proves expected-failures.json: a page gets the same error for every cause of a failed request, so
// that it cannot distinguish them. `node probe.mjs FOLDER` fails when a page gets different errors.
// See README.md.

import { once } from "node:events";
import { createServer } from "node:http";
import { join } from "node:path";
import { open } from "./chromium.mjs";

const listen = async (server) => (await once(server.listen(0, "127.0.0.1"), "listening"), server.address().port);
// Answers without CORS headers.
const withoutCors = createServer((_, response) => response.end("[]"));
const port = await listen(withoutCors);
const closed = createServer();
const free = await listen(closed);
closed.close();

const { page, close } = await open(join(import.meta.dirname, "page.html"), process.argv[2]);
try {
  // The causes, which only the driver of the browser gets.
  const causes = new Map();
  page.on("requestfailed", (request) => causes.set(request.url(), request.failure().errorText));
  const errors = new Set();
  for (const [cause, url] of [
    ["no listener", `http://127.0.0.1:${free}/`],
    ["no listener, IPv6", `http://[::1]:${free}/`],
    ["a port that browsers block", "http://127.0.0.1:1/"],
    ["a host that does not resolve", "http://no-such-host.invalid:8500/"],
    ["https to an http server", `https://127.0.0.1:${port}/`],
    ["an answer that does not allow this page", `http://127.0.0.1:${port}/`],
  ]) {
    const error = await page.evaluate((url) => fetch(url).then(String, String), url);
    console.log(`${cause}: ${error} (${causes.get(url)})`);
    errors.add(error);
  }
  if (errors.size !== 1) throw new Error("the errors in a page differ by cause: update expected-failures.json");
} finally {
  await close();
  withoutCors.close();
}
