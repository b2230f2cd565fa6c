// Runs the transpiled command as `jco run` does, but without transpiling it in each call: `node
// command.mjs FOLDER ARGUMENT…`.

import { join } from "node:path";

const [folder] = process.argv.splice(2, 1);
const { run } = await import(join(folder, "command/consul-session.js"));
try {
  run.run();
  process.exit(0);
} catch {
  // The command has printed its error; the exception is only the exit status.
  process.exit(1);
}
