// The API as this page uses it. Its types are generated from openapi/*.yaml, so
// that a page that doesn't fit the service doesn't pass the type check.

import createClient from "openapi-fetch";

import type { paths as AdminPaths, components } from "./openapi/admin";
import type { paths as SellerPaths } from "./openapi/seller";

type Schemas = components["schemas"];
export type User = Schemas["User"];
export type LiveCall = Schemas["LiveCall"];
export type LiveState = Schemas["LiveState"];
export type LinkCaps = Schemas["LinkCaps"];
export type CapUse = Schemas["CapUse"];
export type CallLog = Schemas["CallLog"];
export type CallLogDetail = Schemas["CallLogDetail"];
export type Attempt = Schemas["Attempt"];
export type TracedLink = Schemas["TracedLink"];
export type LinkVerdict = Schemas["LinkVerdict"];
export type CallStatus = Schemas["CallStatus"];
export type Minute = Schemas["MinuteOfTraffic"];
export type Outcome =
  | "answered"
  | "noanswer"
  | "busy"
  | "canceled"
  | "capped"
  | "refused"
  | "failed";

/** The service refused, or couldn't be reached (then the status is 0). */
export class Failure extends Error {
  constructor(
    readonly status: number,
    detail: string,
  ) {
    super(detail);
  }
}

/** What whoever is signed in may ask: sellers about what is theirs, others about all. */
export interface Side {
  readonly user: User;
  readonly events: string;
  caps(): Promise<{ links: LinkCaps[]; total: number }>;
  logs(): Promise<CallLog[]>;
  log(id: number): Promise<CallLogDetail>;
  traffic(): Promise<Minute[]>;
  /** Not for sellers. */
  hangUp: ((callId: string, reason: string) => Promise<void>) | undefined;
}

/** Milliseconds by which the service's clock is ahead of this browser's. */
let ahead = 0;

/** Now, as the service sees it: a browser's clock may be minutes off. */
export const serviceNow = (): number => Date.now() + ahead;

const LOGS = { per_page: 50 };
const PER_PAGE = 200;
/** Pages of caps that are asked for: a screen isn't made for more. */
const MOST_PAGES = 5;

// Looked up at each call, so that it is that of the page and not a copy of it.
const options = { fetch: (request: Request) => globalThis.fetch(request) };
const admin = createClient<AdminPaths>(options);
const seller = createClient<SellerPaths>(options);

interface Answer<T> {
  data?: T;
  error?: { detail: string };
  response: Response;
}

/** The data of an answer; a `Failure` for any other. */
const ask = async <T>(asking: Promise<Answer<T>>): Promise<T> => {
  const answer = await asking.catch(() => {
    throw new Failure(0, "The service can't be reached.");
  });
  noteClock(answer.response);
  if (!answer.response.ok) {
    const detail = answer.error?.detail ?? `The service answered ${answer.response.status}.`;
    throw new Failure(answer.response.status, detail);
  }
  return answer.data as T;
};

const noteClock = (response: Response): void => {
  const date = Date.parse(response.headers.get("date") ?? "");
  // It is told in whole seconds, so little is no difference.
  const difference = date - Date.now();
  ahead = Number.isNaN(date) || Math.abs(difference) < 2_000 ? 0 : difference;
};

/** Who is signed in; none if nobody is. */
export const signedIn = async (): Promise<User | undefined> => {
  try {
    return (await ask(admin.GET("/api/auth/status"))).user;
  } catch (failure) {
    if (failure instanceof Failure && failure.status === 401) return undefined;
    throw failure;
  }
};

export const signIn = async (username: string, password: string): Promise<User> =>
  (await ask(admin.POST("/api/auth/login", { body: { username, password } }))).user;

export const signOut = async (): Promise<void> => {
  await ask(admin.POST("/api/auth/logout"));
};

export const sideOf = (user: User): Side =>
  user.role === "user" ? sellerSide(user) : adminSide(user);

const adminSide = (user: User): Side => ({
  user,
  events: "/api/admin/live/events",
  caps: () =>
    everyPage((page) =>
      ask(admin.GET("/api/admin/caps", { params: { query: { page, per_page: PER_PAGE } } })),
    ),
  logs: async () => listed(await ask(admin.GET("/api/admin/logs", { params: { query: LOGS } }))),
  log: (id) => ask(admin.GET("/api/admin/logs/{id}", { params: { path: { id } } })),
  traffic: async () => (await ask(admin.GET("/api/admin/traffic"))).minutes,
  hangUp: async (callId, reason) => {
    const query = reason === "" ? {} : { reason };
    await ask(admin.DELETE("/api/admin/live/{callId}", { params: { path: { callId }, query } }));
  },
});

const sellerSide = (user: User): Side => ({
  user,
  events: "/api/seller/live/events",
  caps: () =>
    everyPage((page) =>
      ask(seller.GET("/api/seller/caps", { params: { query: { page, per_page: PER_PAGE } } })),
    ),
  logs: async () => listed(await ask(seller.GET("/api/seller/logs", { params: { query: LOGS } }))),
  log: (id) => ask(seller.GET("/api/seller/logs/{id}", { params: { path: { id } } })),
  traffic: async () => (await ask(seller.GET("/api/seller/traffic"))).minutes,
  hangUp: undefined,
});

/** Logs can be had as CSV too, which nobody asks for here. */
const listed = (page: { items: CallLog[] } | string): CallLog[] =>
  typeof page === "string" ? [] : page.items;

const everyPage = async (
  read: (page: number) => Promise<{ items: LinkCaps[]; total: number; pages: number }>,
): Promise<{ links: LinkCaps[]; total: number }> => {
  const first = await read(1);
  const links = [...first.items];
  for (let page = 2; page <= Math.min(first.pages, MOST_PAGES); page += 1) {
    links.push(...(await read(page)).items);
  }
  return { links, total: first.total };
};
