// Proves expected-failures.json: shows the limitations of preview2-shim on Node without a
// component. `node probe.mjs FOLDER` fails when they are gone.

import assert from "node:assert/strict";
import { once } from "node:events";
import { join } from "node:path";
import { Worker } from "node:worker_threads";

const shim = join(process.argv[2], "node_modules/@bytecodealliance/preview2-shim/dist/nodejs/index.js");
const { http } = await import(shim);
const { Fields, OutgoingRequest, OutgoingBody } = http.types;

// preview2-shim refuses valid authorities.
const accepts = (authority) => {
  try {
    new OutgoingRequest(new Fields()).setAuthority(authority);
    return true;
  } catch {
    return false;
  }
};
assert.deepEqual(["consul-1:8500", "[::1]:8500", "consul_1:8500"].map(accepts), [true, false, false]);

// preview2-shim reports a TLS error like other errors. The server has its own thread, since calls
// block this one.
const server = new Worker(
  `const server = require("node:http").createServer((_, response) => response.end("[]"));
   server.listen(0, "127.0.0.1", () => require("node:worker_threads").parentPort.postMessage(server.address().port));`,
  { eval: true },
);
const [port] = await once(server, "message");
const request = new OutgoingRequest(new Fields());
request.setScheme({ tag: "HTTPS" });
request.setAuthority(`127.0.0.1:${port}`);
request.setPathWithQuery("/");
const future = http.outgoingHandler.handle(request, undefined);
OutgoingBody.finish(request.body(), undefined);
future.subscribe().block();
const { tag, val } = future.get().val;
console.log(tag, val);
process.exit(tag === "err" && val.tag === "internal-error" ? 0 : 1);
