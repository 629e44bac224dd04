// The server under test, as the environment names it, and a client of it for Node.

import { EventSource } from "eventsource";
import { WebSocket } from "ws";
import { createApiClient } from "./lib/api-client.js";

const url = process.env["ORCHESTRATOR_TEST_URL"];
const token = process.env["ORCHESTRATOR_TEST_TOKEN"];
if (!url || !token) throw new Error("ORCHESTRATOR_TEST_URL and ORCHESTRATOR_TEST_TOKEN say which server to test");

export const api = createApiClient(url, {
  token,
  WebSocket,
  EventSource,
  reconnect: { baseMs: 20, capMs: 200, attempts: 5 },
});

/** Breaks every stream and socket, where the server can be told to; elsewhere nothing happens. */
export async function cut(): Promise<void> {
  if (process.env["ORCHESTRATOR_TEST_CUT"]) await fetch(`${url}/_test/cut`, { method: "POST" });
}

const plans = (process.env["ORCHESTRATOR_TEST_PLANS"] ?? "").split(",").filter(Boolean);

/** A plan that nobody has worked on; where there are no others, the one that can be started again and again. */
export function plan(): string {
  return plans.shift() ?? "demo";
}

/** How its tasks are carried out; null is the server's way. */
export const executor = process.env["ORCHESTRATOR_TEST_EXECUTOR"] ?? null;

export function fresh(name: string): string {
  return `${name}_${Math.random().toString(36).slice(2, 10)}`;
}
