// The state of things in one line.

import type { CallStatus, Minute } from "./api";
import { fullness } from "./caps";
import { inState, type Session } from "./session";
import { count, OUTCOMES } from "./words";

const ended = (minutes: readonly Minute[], statuses?: readonly CallStatus[]): number =>
  minutes
    .flatMap((minute) => minute.ended)
    .filter((row) => statuses?.includes(row.callStatus) ?? true)
    .reduce((sum, row) => sum + row.calls, 0);

export const Figures = ({ session }: { session: Session }) => {
  const { routing, ringing, talking, ending } = inState.value;
  const minutes = session.traffic.value.value;
  const links = session.caps.value.value?.links ?? [];
  const full = links.filter((link) => fullness(link.caps) >= 1).length;
  const over = minutes && ended(minutes);
  const answered = minutes && ended(minutes, OUTCOMES.answered.of);
  const capped = minutes?.reduce((sum, minute) => sum + minute.refusedByCaps, 0);
  const last = minutes?.at(-1);
  const thisMinute = last && last.live + ended([last]);
  return (
    <dl class="figures" aria-label="Figures">
      <Figure name="Live calls" value={routing + ringing + talking + ending} />
      <Figure name="Ringing" value={ringing} />
      <Figure name="Talking" value={talking} />
      <Figure name="Calls this minute" value={thisMinute} />
      <Figure
        name="Answered, last hour"
        value={answered}
        more={over && answered !== undefined ? ` ${Math.round((100 * answered) / over)} %` : ""}
      />
      <Figure name="Refused by caps, last hour" value={capped} />
      <Figure name="Links without room" value={full} isAlarm={full > 0} />
    </dl>
  );
};

interface FigureProps {
  name: string;
  value: number | undefined;
  more?: string;
  isAlarm?: boolean;
}

const Figure = ({ name, value, more, isAlarm }: FigureProps) => (
  <div class={isAlarm ? "figure alarm" : "figure"}>
    <dt>{name}</dt>
    <dd>
      {value === undefined ? "–" : count(value)}
      <small>{more}</small>
    </dd>
  </div>
);
