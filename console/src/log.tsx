// Calls that are over, newest first.

import { signal } from "@preact/signals";

import type { CallLog, Outcome } from "./api";
import { moveFocus } from "./keys";
import { now, type Session } from "./session";
import { openLog } from "./trace";
import { Trouble } from "./trouble";
import { duration, outcomeOf, statusName, when } from "./words";

const only = signal<"all" | "unanswered">("all");

export const LogPanel = ({ session }: { session: Session }) => {
  const all = session.logs.value.value;
  const shown = all?.filter((log) => only.value === "all" || log.callStatus !== "ANSWERED") ?? [];
  return (
    <section class="panel log-panel" aria-labelledby="recent">
      <header>
        <h2 id="recent">Recent calls</h2>
        <button
          class="button small"
          aria-pressed={only.value === "unanswered"}
          onClick={() => {
            only.value = only.value === "all" ? "unanswered" : "all";
          }}
        >
          Unanswered only
        </button>
      </header>
      <Trouble of={session.logs} />
      <div class="body" tabIndex={0} role="region" aria-label="Recent calls, list">
        {all && shown.length === 0 && <p class="empty">No call yet.</p>}
        {shown.length > 0 && <LogTable rows={shown} />}
      </div>
    </section>
  );
};

const LogTable = ({ rows }: { rows: CallLog[] }) => (
  <table role="table" onKeyDown={moveFocus}>
    <thead role="rowgroup">
      <tr role="row">
        <th role="columnheader">Time</th>
        <th role="columnheader">Outcome</th>
        <th role="columnheader" class="number">
          Talk
        </th>
        <th role="columnheader">Caller</th>
        <th role="columnheader">DID</th>
        <th role="columnheader">Campaign</th>
        <th role="columnheader">Client</th>
      </tr>
    </thead>
    <tbody role="rowgroup">
      {rows.map((log) => (
        <tr role="row" key={log.id} data-call={log.callId}>
          <td role="cell" class="plain">
            <button
              class="row-button"
              onClick={() => openLog(log.id)}
              title="Why it went where it went"
            >
              {when(log.timestampStart, now.value)}
              <span class="unseen">
                : how the call from {log.callerIdNum ?? "a withheld number"} was decided
              </span>
            </button>
          </td>
          <td role="cell" class="plain">
            <OutcomeSign log={log} />
          </td>
          <td role="cell" class="number" data-label="Talk">
            {log.timestampAnswered ? duration(log.billsecSeconds) : ""}
          </td>
          <td role="cell" data-label="Caller">
            {log.callerIdNum ?? <span class="soft">withheld</span>}
          </td>
          <td role="cell" data-label="DID">
            {log.incomingDidNumber}
          </td>
          <td role="cell" data-label="Campaign">
            {log.campaign?.name}
          </td>
          <td role="cell" data-label="Client">
            {log.client?.name}
          </td>
        </tr>
      ))}
    </tbody>
  </table>
);

export const OutcomeSign = ({ log }: { log: Pick<CallLog, "callStatus"> }) => {
  const outcome: Outcome = outcomeOf(log.callStatus);
  return <span class={`outcome of-${outcome}`}>{statusName(log.callStatus)}</span>;
};
