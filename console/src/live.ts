// Follows live calls: a snapshot, then what changes, over server-sent events.
//
// The browser comes back by itself after a lost connection and says how far it
// had read (Last-Event-ID), so nothing is missed and nothing is told twice. What
// it doesn't do is looked after here: a connection that is open and dead, and
// one that was refused.

import { signal } from "@preact/signals";

import type { LiveCall } from "./api";

export type Connection =
  | { is: "connecting" }
  | { is: "open" }
  /** `since`: the last time that anything was heard. */
  | { is: "lost"; since: number };

export interface Following {
  stop(): void;
}

/** All live calls that whoever is signed in may see, oldest first. */
export const calls = signal<ReadonlyMap<string, LiveCall>>(new Map());
export const connection = signal<Connection>({ is: "connecting" });

/** The service sends a heartbeat every 15 seconds. */
const SILENCE_MS = 40_000;
const RETRY_MS = 2_000;
/** What comes within this time is drawn at once: the end of a thousand calls is no thousand drawings. */
const TOGETHER_MS = 50;

type LiveEvent =
  | { type: "snapshot"; calls: LiveCall[] }
  | { type: "call"; call: LiveCall }
  | { type: "gone"; callId: string }
  | { type: "resync" }
  | { type: "heartbeat" };

/** `changed` is called after changes, once for each kind; `refused` when the service doesn't let us in. */
export const follow = (
  path: string,
  changed: (what: LiveEvent["type"]) => void,
  refused: () => void,
): Following => {
  let source: EventSource;
  let heard = Date.now();
  let retry: ReturnType<typeof setTimeout> | undefined;
  let settling: ReturnType<typeof setTimeout> | undefined;
  /** Heard, and not shown yet. */
  let told: LiveEvent[] = [];
  connection.value = { is: "connecting" };

  const lost = (): void => {
    if (connection.peek().is !== "lost") connection.value = { is: "lost", since: heard };
  };
  const take = (event: MessageEvent<string>): void => {
    heard = Date.now();
    told.push(JSON.parse(event.data) as LiveEvent);
    settling ??= setTimeout(settle, TOGETHER_MS);
  };
  const settle = (): void => {
    settling = undefined;
    const events = told;
    told = [];
    calls.value = events.reduce(after, new Map(calls.peek()));
    for (const what of new Set(events.map((event) => event.type))) changed(what);
  };
  const open = (): void => {
    clearTimeout(retry);
    source?.close();
    heard = Date.now();
    source = new EventSource(path);
    for (const name of ["snapshot", "call", "gone", "resync", "heartbeat"] as const) {
      source.addEventListener(name, take);
    }
    source.onopen = () => {
      heard = Date.now();
      connection.value = { is: "open" };
      changed("resync");
    };
    source.onerror = () => {
      lost();
      if (source.readyState === EventSource.CLOSED) {
        refused();
        clearTimeout(retry);
        retry = setTimeout(open, RETRY_MS);
      }
    };
  };
  const watch = setInterval(() => {
    if (Date.now() - heard > SILENCE_MS && source.readyState === EventSource.OPEN) {
      lost();
      open();
    }
  }, 5_000);
  open();
  return {
    stop() {
      clearInterval(watch);
      clearTimeout(retry);
      clearTimeout(settling);
      source.close();
      calls.value = new Map();
    },
  };
};

/** `calls` after this; a map of its own, which is changed. */
const after = (calls: Map<string, LiveCall>, event: LiveEvent): Map<string, LiveCall> => {
  switch (event.type) {
    case "snapshot":
      return new Map(event.calls.map((call) => [call.callId, call]));
    case "call":
      return calls.set(event.call.callId, event.call);
    case "gone":
      calls.delete(event.callId);
      return calls;
    default:
      return calls;
  }
};
