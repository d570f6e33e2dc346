// The calls that are up.

import { signal } from "@preact/signals";

import type { LiveCall, LiveState } from "./api";
import { askToHangUp } from "./hangup";
import { moveFocus } from "./keys";
import { calls, connection } from "./live";
import { inState, now, type Session, sellers } from "./session";
import { count, duration, STATES, timeOfDay } from "./words";

/** Rows that a browser draws without effort every second. */
const MOST_ROWS = 300;

const wanted = signal("");
const state = signal<LiveState | undefined>(undefined);

const matches = (call: LiveCall): boolean => {
  if (state.value && call.state !== state.value) return false;
  const text = wanted.value.trim().toLowerCase();
  if (text === "") return true;
  const { callerIdNum, incomingDidNumber, campaign, client, callId } = call;
  return [
    callerIdNum,
    incomingDidNumber,
    campaign?.name,
    client?.name,
    sellerOf(call),
    callId,
  ].some((part) => part?.toLowerCase().includes(text));
};

const sellerOf = (call: LiveCall): string =>
  call.userId == null ? "" : (sellers.value.get(call.userId) ?? `#${call.userId}`);

export const LivePanel = ({ session }: { session: Session }) => {
  const all = [...calls.value.values()];
  const found = all.filter(matches);
  const shown = found.slice(0, MOST_ROWS);
  const isOperator = session.side.user.role !== "user";
  return (
    <section class="panel live-panel" aria-labelledby="live-calls">
      <header>
        <h2 id="live-calls" tabIndex={-1}>
          Live calls <span class="soft">{count(all.length)}</span>
        </h2>
        {(Object.keys(STATES) as LiveState[]).map((name) => (
          <button
            class="button small"
            aria-pressed={state.value === name}
            onClick={() => {
              state.value = state.value === name ? undefined : name;
            }}
          >
            {STATES[name]} {inState.value[name]}
          </button>
        ))}
        <input
          class="find"
          type="search"
          placeholder="Find"
          aria-label="Find live calls"
          value={wanted}
          onInput={(event) => {
            wanted.value = event.currentTarget.value;
          }}
        />
      </header>
      <div class="body" tabIndex={0} role="region" aria-label="Live calls, list">
        {shown.length === 0 ? (
          <p class="empty">{emptiness(all.length)}</p>
        ) : (
          <LiveTable rows={shown} isOperator={isOperator} />
        )}
        {found.length > shown.length && (
          <p class="empty">
            and {count(found.length - shown.length)} more: narrow them down above.
          </p>
        )}
      </div>
    </section>
  );
};

const emptiness = (all: number): string => {
  if (all > 0) return "No live call is like that.";
  return connection.value.is === "open" ? "No call is up." : "Nothing is known yet.";
};

const LiveTable = ({ rows, isOperator }: { rows: LiveCall[]; isOperator: boolean }) => (
  <table role="table" onKeyDown={moveFocus}>
    <thead role="rowgroup">
      <tr role="row">
        <th role="columnheader">State</th>
        <th role="columnheader" class="number">
          For
        </th>
        <th role="columnheader">Caller</th>
        <th role="columnheader">DID</th>
        {isOperator && <th role="columnheader">Seller</th>}
        <th role="columnheader">Campaign</th>
        <th role="columnheader">Client</th>
        <th role="columnheader" class="number">
          Attempts
        </th>
        <th role="columnheader">Came</th>
        {isOperator && (
          <th role="columnheader">
            <span class="unseen">Hang up</span>
          </th>
        )}
      </tr>
    </thead>
    <tbody role="rowgroup">
      {rows.map((call) => (
        <tr role="row" key={call.callId} data-call={call.callId}>
          <td role="cell" class="plain">
            <span class={`state ${call.state}`}>{STATES[call.state]}</span>
          </td>
          <td role="cell" class="number" data-label="For">
            <Since instant={call.since} />
          </td>
          <td role="cell" data-label="Caller">
            {call.callerIdNum ?? <span class="soft">withheld</span>}
          </td>
          <td role="cell" data-label="DID">
            {call.incomingDidNumber}
          </td>
          {isOperator && (
            <td role="cell" data-label="Seller">
              {sellerOf(call)}
            </td>
          )}
          <td role="cell" data-label="Campaign">
            {call.campaign?.name}
          </td>
          <td role="cell" data-label="Client">
            {call.client?.name}
          </td>
          <td role="cell" class="number" data-label="Attempts">
            {call.attempts}
          </td>
          <td role="cell" data-label="Came">
            {timeOfDay(call.startedAt)}
          </td>
          {isOperator && (
            <td role="cell" class="plain">
              <button
                class="button small danger"
                aria-label={`Hang up the call from ${call.callerIdNum ?? "a withheld number"}`}
                disabled={connection.value.is === "lost"}
                onClick={() => askToHangUp(call)}
              >
                Hang up
              </button>
            </td>
          )}
        </tr>
      ))}
    </tbody>
  </table>
);

const Since = ({ instant }: { instant: string }) => (
  <>{duration((now.value - Date.parse(instant)) / 1_000)}</>
);
