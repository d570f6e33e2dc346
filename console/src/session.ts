// Who is signed in, and all that is known while they are.

import { computed, signal } from "@preact/signals";
import type { CallLog, LinkCaps, Minute, Side, User } from "./api";
import { Failure, serviceNow, sideOf, signedIn, signIn, signOut } from "./api";
import { calls, follow } from "./live";
import { type Polled, poll } from "./polled";
import { say } from "./toast";

export interface Session {
  readonly side: Side;
  readonly caps: Polled<{ links: LinkCaps[]; total: number }>;
  readonly logs: Polled<CallLog[]>;
  readonly traffic: Polled<Minute[]>;
  end(): void;
}

export type Standing =
  | { is: "asking" }
  /** `why`: what ended the session that there was. */
  | { is: "out"; why?: string }
  | { is: "in"; session: Session };

export const standing = signal<Standing>({ is: "asking" });

/** The service's time, once a second: what durations are counted to. */
export const now = signal(serviceNow());
setInterval(() => {
  now.value = serviceNow();
}, 1_000);

/** Sellers' names by id, as far as links have told them. */
export const sellers = computed(() => {
  const links = standing.value.is === "in" ? standing.value.session.caps.value.value?.links : [];
  return new Map((links ?? []).map((link) => [link.user.id, link.user.username]));
});

const begin = (user: User): Session => {
  const side = sideOf(user);
  // Asked rather than believed: a proxy between may refuse too.
  const refused = async (): Promise<void> => {
    const user = await signedIn().catch(() => "unknown");
    if (user === undefined) leave("Your session has ended. Sign in again.");
  };
  const caps = poll(side.caps, { everyMs: 5_000, soonMs: 400 }, refused);
  const logs = poll(side.logs, { everyMs: 10_000, soonMs: 600 }, refused);
  const traffic = poll(side.traffic, { everyMs: 10_000, soonMs: 1_500 }, refused);
  const following = follow(
    side.events,
    (what) => {
      if (what === "heartbeat") return;
      caps.soon();
      traffic.soon();
      if (what === "call") return;
      // A record is written just after its call is gone: once now, and once more.
      logs.soon();
      setTimeout(() => {
        logs.soon();
        traffic.soon();
      }, 1_500);
    },
    refused,
  );
  return {
    side,
    caps,
    logs,
    traffic,
    end() {
      following.stop();
      for (const polled of [caps, logs, traffic]) polled.stop();
    },
  };
};

const leave = (why?: string): void => {
  const before = standing.peek();
  if (before.is === "in") before.session.end();
  standing.value = why === undefined ? { is: "out" } : { is: "out", why };
};

/** Goes on with the session of an earlier visit, if it still is one. */
export const resume = async (): Promise<void> => {
  try {
    const user = await signedIn();
    standing.value = user ? { is: "in", session: begin(user) } : { is: "out" };
  } catch (failure) {
    leave(failure instanceof Failure ? failure.message : String(failure));
  }
};

export const enter = async (username: string, password: string): Promise<void> => {
  const user = await signIn(username, password);
  standing.value = { is: "in", session: begin(user) };
};

/** Signs out; whoever can't is told, since they still are signed in. */
export const exit = async (): Promise<void> => {
  try {
    await signOut();
  } catch (failure) {
    if (!(failure instanceof Failure && failure.status === 401)) {
      say(`Not signed out: ${(failure as Error).message}`);
      return;
    }
  }
  leave();
};

/** How many live calls there are in each state. */
export const inState = computed(() => {
  const counts = { routing: 0, ringing: 0, talking: 0, ending: 0 };
  for (const call of calls.value.values()) counts[call.state] += 1;
  return counts;
});
