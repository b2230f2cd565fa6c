import { desiredState } from "./plugin/consul-session-plugin.js";

const port = Number(process.argv[2] ?? 8500);
try {
  const { sessionId, changed } = desiredState.apply({ name: "session1", delay: 20, port });
  console.log(sessionId, changed ? "changed" : "unchanged");
} catch ({ payload: { tag, val } }) {
  console.error(`${tag}: ${val.message ?? val}`);
  process.exitCode = 1;
}
