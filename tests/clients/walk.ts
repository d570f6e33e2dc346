// From a DID to the first call log, with clients generated from both documents.
//
// Prints `CALL <number>` when a call can come, and expects one then.

import assert from "node:assert/strict";
import { setTimeout } from "node:timers/promises";
import createClient from "openapi-fetch";
import type { paths as AdminPaths } from "./admin.js";
import type { paths as SellerPaths } from "./seller.js";

const setting = (name: string): string => {
  const value = process.env[`CAPCONDUIT_${name}`];
  assert(value, `CAPCONDUIT_${name} is not set`);
  return value;
};
const baseUrl = setting("URL");
const number = setting("NUMBER");

/** The body of an answer that must be a success. */
function right<T>({ data, error }: { data?: T; error?: unknown }): T {
  assert(data !== undefined, JSON.stringify(error));
  return data;
}

/** Signs in by cookie, and makes a token for what follows. */
async function signIn(username: string, password: string): Promise<Record<string, string>> {
  const client = createClient<SellerPaths>({ baseUrl });
  const answer = await client.POST("/api/auth/login", { body: { username, password } });
  assert.equal(right(answer).user.username, username);
  const cookie = answer.response.headers.getSetCookie()[0]?.split(";")[0];
  assert(cookie);
  const made = await client.POST("/api/auth/tokens", { body: { name: "walk" }, headers: { cookie } });
  return { authorization: `Bearer ${right(made).token}` };
}

const admin = createClient<AdminPaths>({ baseUrl, headers: await signIn("admin", setting("PASSWORD")) });
const password = "a seller's password";
right(
  await admin.POST("/api/admin/users", {
    body: { username: "ts-seller", email: "ts@example.com", password, role: "user" },
  }),
);
const buyer = right(
  await admin.POST("/api/admin/clients", {
    body: {
      clientIdentifier: "ts-client",
      name: "The client",
      pjsip: {
        endpoint: { id: "ts-client", aors: "ts-client", context: "nowhere" },
        aor: { id: "ts-client", contact: setting("CONTACT") },
      },
    },
  }),
);

const seller = createClient<SellerPaths>({ baseUrl, headers: await signIn("ts-seller", password) });
const did = right(await seller.POST("/api/seller/dids", { body: { number } }));
const again = await seller.POST("/api/seller/dids", { body: { number } });
assert.equal(again.error?.status, 409);
assert.deepEqual(Object.keys(again.error.errors ?? {}), ["number"]);

const campaign = right(
  await seller.POST("/api/seller/campaigns", {
    body: { name: "Solar", routingStrategy: "priority", dialTimeoutSeconds: 20 },
  }),
);
const path = { id: campaign.id };
right(await seller.PUT("/api/seller/campaigns/{id}/dids", { params: { path }, body: { didIds: [did.id] } }));
right(
  await seller.POST("/api/seller/campaigns/{id}/clients", {
    params: { path },
    body: { clientId: buyer.id, maxConcurrency: 1, forwardingPriority: 1, weight: 1, dailyCap: 5 },
  }),
);
console.log(`CALL ${number}`);

async function firstLog() {
  for (const deadline = Date.now() + 20_000; Date.now() < deadline; await setTimeout(50)) {
    const query = { campaign_id: campaign.id, call_status: "ANSWERED" } as const;
    const page = right(await seller.GET("/api/seller/logs", { params: { query } }));
    assert(typeof page !== "string", "CSV was not asked for");
    if (page.items[0]) return page.items[0];
  }
  throw new Error("there is no call log");
}
const { id } = await firstLog();
const log = right(await seller.GET("/api/seller/logs/{id}", { params: { path: { id } } }));
assert.equal(log.did?.number, number);
assert.equal(log.client?.id, buyer.id);
assert.equal(log.attempts[0]?.result, "answered");
assert.equal(right(await admin.GET("/api/admin/logs/{id}", { params: { path: { id } } })).id, id);
const [link] = right(await seller.GET("/api/seller/campaigns/{id}", { params: { path } })).clientSettings;
assert.equal(link?.currentTotalCalls, 1);
console.log("DONE");
