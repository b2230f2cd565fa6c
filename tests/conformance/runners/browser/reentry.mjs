// Enters the plugin again while a call waits, which jco allows in its asynchronous mode: `node
// reentry.mjs FOLDER PORT`, where FOLDER holds the transpiled plugin. The second call must be
// refused, and the first must succeed.

import assert from "node:assert/strict";
import { join } from "node:path";
import { open } from "./chromium.mjs";

const [folder, port] = process.argv.slice(2);
const { page, close } = await open(join(import.meta.dirname, "page.html"), folder);
try {
  await page.waitForFunction(() => window.answer);
  const result = await page.evaluate(async (port) => {
    const { desiredState, sessions } = await import("/plugin/consul-session-plugin.js");
    const present = () => desiredState.applyJson(JSON.stringify({ name: "session1", delay: 20, port }));
    // An invalid id is refused before a request is sent, so that this call makes no host call.
    const enter = () => {
      try {
        return sessions.info("not an id ".repeat(100), undefined, { port });
      } catch (error) {
        return error.payload;
      }
    };
    // Delays each request, so that the call waits for its answer, and enters the plugin meanwhile.
    const { fetch } = window;
    const meanwhile = [];
    window.fetch = async (...request) => {
      await new Promise((resolve) => setTimeout(resolve, 50));
      meanwhile.push(...Array.from({ length: 100 }, enter));
      return fetch(...request);
    };
    const first = JSON.parse(await present());
    window.fetch = fetch;
    return { meanwhile, first, afterwards: enter(), second: JSON.parse(await present()) };
  }, Number(port));

  assert.equal(result.meanwhile.length % 100, 0);
  assert.notEqual(result.meanwhile.length, 0);
  for (const refused of result.meanwhile) {
    assert.equal(refused.tag, "other");
    assert.match(refused.val, /busy with another call/);
  }
  assert.equal(result.afterwards.tag, "invalid-option");
  assert.equal(result.first.changed, true);
  assert.deepEqual([result.second.changed, result.second.session_id], [false, result.first.session_id]);
  console.log(result.first.session_id);
} finally {
  await close();
}
