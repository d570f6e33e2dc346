// One call that is over, and how it was decided, step by step.

import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";

import type { Attempt, CallLogDetail, TracedLink } from "./api";
import { Cap } from "./caps";
import { OutcomeSign } from "./log";
import { now, type Session } from "./session";
import { duration, reasonName, verdictName, when } from "./words";

const opened = signal<number | undefined>(undefined);

export const openLog = (id: number): void => {
  opened.value = id;
};

const close = (): void => {
  opened.value = undefined;
};

export const LogDialog = ({ session }: { session: Session }) => {
  const dialog = useRef<HTMLDialogElement>(null);
  const [found, setFound] = useState<CallLogDetail | string>();
  const id = opened.value;
  useEffect(() => {
    setFound(undefined);
    if (id === undefined) {
      dialog.current?.close();
      return;
    }
    if (!dialog.current?.open) dialog.current?.showModal();
    let isCurrent = true;
    session.side.log(id).then(
      (log) => isCurrent && setFound(log),
      (failure: Error) => isCurrent && setFound(failure.message),
    );
    return () => {
      isCurrent = false;
    };
  }, [id, session]);
  return (
    <dialog
      ref={dialog}
      class="side"
      aria-labelledby="one-call"
      onClose={close}
      onClick={(event) => {
        if (event.target === event.currentTarget) close();
      }}
    >
      <header>
        <h2 id="one-call">{typeof found === "object" ? <OutcomeSign log={found} /> : "A call"}</h2>
        <button class="button" autofocus onClick={close}>
          Close
        </button>
      </header>
      <div class="body">
        {found === undefined && id !== undefined && <p class="soft">Reading ...</p>}
        {typeof found === "string" && (
          <p class="complaint" role="alert">
            {found}
          </p>
        )}
        {typeof found === "object" && <Call log={found} />}
      </div>
    </dialog>
  );
};

const Call = ({ log }: { log: CallLogDetail }) => (
  <>
    <dl class="facts">
      <Fact name="Came" value={when(log.timestampStart, now.value)} />
      <Fact
        name="Caller"
        value={[log.callerIdNum ?? "withheld", log.callerIdName].filter(Boolean).join(" · ")}
      />
      <Fact name="Number" value={log.incomingDidNumber} />
      <Fact name="Reason" value={why(log)} />
      <Fact
        name="Length"
        value={`${duration(log.durationSeconds)}, talked ${duration(log.billsecSeconds)}`}
      />
      <Fact name="Hang-up" value={`${log.hangupCauseText} (${log.hangupCauseCode})`} />
      <Fact name="Call id" value={log.callId} />
    </dl>
    <div>
      <h3 class="unseen">How it was decided</h3>
      <ol class="steps">
        <Arrival log={log} />
        {log.trace?.links.map((link, index) => (
          <LinkStep
            key={link.linkId}
            place={index + 1}
            link={link}
            attempts={log.attempts.filter((a) => a.campaignClientSettingId === link.linkId)}
            start={log.timestampStart}
          />
        ))}
        {log.attempts
          .filter((a) => !log.trace?.links.some((link) => link.linkId === a.campaignClientSettingId))
          .map((attempt) => (
            <Untraced key={attempt.position} attempt={attempt} start={log.timestampStart} />
          ))}
        <li class="step">
          <span class="mark" aria-hidden="true">
            ■
          </span>
          <h3>
            {why(log)}{" "}
            <span class="verdict">{after(log.timestampStart, log.timestampEnd)}</span>
          </h3>
          <p>{ending(log)}</p>
        </li>
      </ol>
    </div>
  </>
);

const Fact = ({ name, value }: { name: string; value: string }) => (
  <>
    <dt>{name}</dt>
    <dd>{value}</dd>
  </>
);

const ORDERS: Record<string, string> = {
  priority: "by priority, weight among equals",
  round_robin: "in turn",
  weighted: "drawn by weight",
};

/** Why it ended as it did, as far as it is known. */
const why = (log: CallLogDetail): string =>
  log.decidedBy === "dialplan"
    ? `Reported by the dialplan as ${log.callStatus}`
    : reasonName(log.reason);

const Arrival = ({ log }: { log: CallLogDetail }) => {
  const trace = log.trace;
  if (!trace) {
    const isLedElsewhere = log.decidedBy === "dialplan";
    return (
      <li class="step">
        <span class="mark" aria-hidden="true">
          ▶
        </span>
        <h3>{isLedElsewhere ? "The dialplan led this call by itself" : "A decision"}</h3>
        <p>
          {isLedElsewhere
            ? "No decision of the service is known: what follows is what the dialplan reported."
            : "How this call was decided can't be read by this version."}
        </p>
      </li>
    );
  }
  return (
    <li class="step">
      <span class="mark" aria-hidden="true">
        ▶
      </span>
      <h3>
        {trace.campaignName ? `Campaign ${trace.campaignName}` : "No campaign takes the number"}
      </h3>
      <p>
        {trace.strategy &&
          `Clients ${ORDERS[trace.strategy]}; each is rung for ${trace.dialTimeoutSeconds} s.`}
        {trace.seed != null && ` Drawn from seed ${trace.seed}.`}
        {trace.cursor != null && ` The turn was after link ${trace.cursor}.`}
      </p>
    </li>
  );
};

interface StepProps {
  place: number;
  link: TracedLink;
  /** More than one where a leg was made anew. */
  attempts: readonly Attempt[];
  start: string;
}

const LinkStep = ({ place, link, attempts, start }: StepProps) => {
  const attempt = attempts.at(-1);
  const kind =
    attempt?.result === "answered"
      ? "taken"
      : link.verdict === "not_reached"
        ? "skipped"
        : "passed";
  return (
    <li class={`step ${kind}`}>
      <span class="mark" aria-hidden="true">
        {place}
      </span>
      <h3>
        {link.clientName}
        <span class="verdict">
          {attempt
            ? `Dialled: ${reasonName(attempt.result).toLowerCase()}`
            : verdictName(link.verdict)}
        </span>
      </h3>
      <p>
        Priority {link.priority}, weight {link.weight}
        {link.withinShare &&
          ". The ledger was away: one instance decided within its share of each cap"}
      </p>
      {link.refusedBy && <Cap cap={link.refusedBy} of={`${link.refusedBy.scope} at the time`} />}
      {attempts.map((one) => (
        <p key={one.position}>
          {attempts.length > 1 && `Attempt ${one.position}, ${reasonName(one.result).toLowerCase()}: `}
          {story(one, start)}
        </p>
      ))}
    </li>
  );
};

/** A client that was dialled by no decision that is known. */
const Untraced = ({ attempt, start }: { attempt: Attempt; start: string }) => (
  <li class={`step ${attempt.result === "answered" ? "taken" : "passed"}`}>
    <span class="mark" aria-hidden="true">
      {attempt.position}
    </span>
    <h3>
      {attempt.client.name ?? "A client"}
      <span class="verdict">Dialled: {reasonName(attempt.result).toLowerCase()}</span>
    </h3>
    <p>{story(attempt, start)}</p>
  </li>
);

/** Seconds between two instants, as +1.2 s. */
const after = (start: string, instant: string): string =>
  `+${((Date.parse(instant) - Date.parse(start)) / 1_000).toFixed(1)} s`;

const story = (attempt: Attempt, start: string): string =>
  [
    `dialled ${after(start, attempt.startedAt)}`,
    attempt.ringingAt && `rang ${after(start, attempt.ringingAt)}`,
    attempt.answeredAt && `answered ${after(start, attempt.answeredAt)}`,
    `over ${after(start, attempt.endedAt)}`,
    attempt.sipCode && `SIP ${attempt.sipCode}`,
  ]
    .filter(Boolean)
    .join(", ");

const ending = (log: CallLogDetail): string =>
  log.timestampAnswered
    ? `Talked ${duration(log.billsecSeconds)} with ${log.client?.name ?? "a client"}.`
    : "Nobody talked.";
