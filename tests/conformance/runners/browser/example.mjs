// Opens the unchanged examples/browser/index.html, and prints its output: `node example.mjs FOLDER
// PORT`. See README.md.

import { join } from "node:path";
import { open } from "./chromium.mjs";

const [folder, port] = process.argv.slice(2);
const html = join(import.meta.dirname, "../../../../examples/browser/index.html");
// The page uses localhost:8500, the default of an agent; the agent of a test listens on another
// port.
const { page, close } = await open(html, folder, [`--host-resolver-rules=MAP localhost:8500 127.0.0.1:${port}`]);
try {
  await page.waitForFunction(() => document.querySelector("pre").textContent !== "", null, { timeout: 30_000 });
  console.log(await page.textContent("pre"));
} finally {
  await close();
}
