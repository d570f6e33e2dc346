// What the API's fixed words are called on the page, and how times and counts are written.

import type { CallStatus, LinkVerdict, LiveState, Outcome } from "./api";

export const STATES: Record<LiveState, string> = {
  routing: "Routing",
  ringing: "Ringing",
  talking: "Talking",
  ending: "Ending",
};

/** What calls are counted as: statuses that mean the same to whoever watches are one. */
export const OUTCOMES: Record<Outcome, { name: string; of: readonly CallStatus[] }> = {
  answered: { name: "Answered", of: ["ANSWERED"] },
  noanswer: { name: "No answer", of: ["NOANSWER"] },
  busy: { name: "Busy", of: ["BUSY"] },
  canceled: { name: "Caller left", of: ["CANCELED"] },
  capped: { name: "Refused by a cap", of: ["REJECTED_CC", "REJECTED_TOTAL"] },
  refused: { name: "Refused", of: ["REJECTED", "REJECTED_DID"] },
  failed: { name: "Failed", of: ["FAILED"] },
};

export const OUTCOME_ORDER = Object.keys(OUTCOMES) as Outcome[];

const STATUSES: Record<CallStatus, string> = {
  ANSWERED: "Answered",
  NOANSWER: "No answer",
  BUSY: "Busy",
  CANCELED: "Caller left",
  FAILED: "Failed",
  REJECTED: "Refused",
  REJECTED_CC: "Cap: concurrency",
  REJECTED_TOTAL: "Cap: volume",
  REJECTED_DID: "Refused: number",
};

const VERDICTS: Record<LinkVerdict, string> = {
  dialled: "Dialled",
  not_reached: "Not reached",
  link_inactive: "Link is inactive",
  client_inactive: "Client is inactive",
  no_endpoint: "Client has no endpoint",
  concurrency_cap: "Concurrency cap of the link",
  total_cap: "Total cap of the link",
  hourly_cap: "Hourly cap",
  daily_cap: "Daily cap",
  weekly_cap: "Weekly cap",
  monthly_cap: "Monthly cap",
  client_concurrency_cap: "Concurrency cap of the client",
  campaign_concurrency_cap: "Concurrency cap of the campaign",
  seller_concurrency_cap: "Concurrency cap of the seller",
};

const WINDOWS: Record<string, string> = { concurrency: "at once", total: "in all" };

export const outcomeOf = (status: CallStatus): Outcome =>
  OUTCOME_ORDER.find((outcome) => OUTCOMES[outcome].of.includes(status)) ?? "failed";

export const statusName = (status: CallStatus): string => STATUSES[status] ?? status;

export const verdictName = (verdict: LinkVerdict): string => VERDICTS[verdict] ?? verdict;

/** `all_no_answer` as it is said. */
export const reasonName = (reason: string): string => {
  const words = reason.replaceAll("_", " ").replace(/\bdid\b/, "DID");
  return words.charAt(0).toUpperCase() + words.slice(1);
};

export const windowName = (window: string | null | undefined): string =>
  window == null ? "at once" : (WINDOWS[window] ?? window);

const pad = (value: number): string => value.toString().padStart(2, "0");

/** Seconds as 0:42, 12:05 or 1:02:03. */
export const duration = (seconds: number): string => {
  const whole = Math.max(0, Math.floor(seconds));
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const tail = pad(whole % 60);
  return hours > 0 ? `${hours}:${pad(minutes)}:${tail}` : `${minutes}:${tail}`;
};

/** The time of day, in the reader's own zone. */
export const timeOfDay = (instant: string | number): string => {
  const date = new Date(instant);
  return `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
};

/** With the day, unless it is today. */
export const when = (instant: string, now: number): string => {
  const date = new Date(instant);
  const isToday = date.toDateString() === new Date(now).toDateString();
  const day = `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
  return isToday ? timeOfDay(instant) : `${day} ${timeOfDay(instant)}`;
};

export const count = (value: number): string => value.toLocaleString("en-GB");
