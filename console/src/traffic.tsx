// How many calls came in each minute of the last hour, and what became of them.

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

import type { Minute, Outcome } from "./api";
import type { Session } from "./session";
import { colours } from "./theme";
import { Trouble } from "./trouble";
import { count, OUTCOME_ORDER, OUTCOMES, outcomeOf, timeOfDay } from "./words";

type Kind = Outcome | "live";

const KINDS: readonly Kind[] = [...OUTCOME_ORDER, "live"];

const nameOf = (kind: Kind): string => (kind === "live" ? "Still live" : OUTCOMES[kind].name);

const calls = (minute: Minute, kind: Kind): number =>
  kind === "live"
    ? minute.live
    : minute.ended
        .filter((row) => outcomeOf(row.callStatus) === kind)
        .reduce((sum, row) => sum + row.calls, 0);

export const TrafficPanel = ({ session }: { session: Session }) => {
  const minutes = session.traffic.value.value;
  return (
    <section class="panel traffic-panel" aria-labelledby="traffic">
      <header>
        <h2 id="traffic">
          Calls per minute <span class="soft">last hour</span>
        </h2>
      </header>
      <Trouble of={session.traffic} />
      <div class="body" tabIndex={0} role="region" aria-label="Calls per minute, charts">
        {minutes && <Traffic minutes={minutes} />}
      </div>
    </section>
  );
};

const Traffic = ({ minutes }: { minutes: Minute[] }) => {
  const sums = new Map(
    KINDS.map((kind) => [kind, minutes.reduce((sum, m) => sum + calls(m, kind), 0)]),
  );
  const all = [...sums.values()].reduce((sum, value) => sum + value, 0);
  const shown = KINDS.filter((kind) => (sums.get(kind) ?? 0) > 0);
  return (
    <div class="traffic">
      <Chart minutes={minutes} />
      {all === 0 && <p class="soft">No call came within the last hour.</p>}
      <ul class="shares" aria-label="What became of the calls of the last hour">
        {shown.map((kind) => {
          const sum = sums.get(kind) ?? 0;
          const percent = Math.round((100 * sum) / all);
          return (
            <li class={`share of-${kind}`} key={kind}>
              <span class="what">
                <span class="swatch" data-kind={kind} /> {nameOf(kind)}
              </span>
              <span class="bar" aria-hidden="true">
                <span style={{ width: `${percent}%` }} />
              </span>
              <span class="number">{count(sum)}</span>
              <span class="number soft">{percent} %</span>
            </li>
          );
        })}
      </ul>
      <details>
        <summary>As a table</summary>
        <table role="table">
          <thead role="rowgroup">
            <tr role="row">
              <th role="columnheader">Minute</th>
              {shown.map((kind) => (
                <th role="columnheader" class="number" key={kind}>
                  {nameOf(kind)}
                </th>
              ))}
            </tr>
          </thead>
          <tbody role="rowgroup">
            {minutes
              .filter((minute) => minute.live > 0 || minute.ended.length > 0)
              .reverse()
              .map((minute) => (
                <tr role="row" key={minute.start}>
                  <td role="cell" class="plain">
                    {timeOfDay(minute.start).slice(0, 5)}
                  </td>
                  {shown.map((kind) => (
                    <td role="cell" class="number" key={kind} data-label={nameOf(kind)}>
                      {calls(minute, kind)}
                    </td>
                  ))}
                </tr>
              ))}
          </tbody>
        </table>
      </details>
    </div>
  );
};

const HEIGHT = 150;

/** Bars that stand on each other: each is drawn from the ground, the highest first. */
const Chart = ({ minutes }: { minutes: Minute[] }) => {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(null);
  const newest = useRef(minutes);
  newest.current = minutes;
  const theme = colours.value;
  useEffect(() => {
    const at = place.current;
    if (!at) return;
    const width = (): number => Math.max(at.clientWidth, 120);
    const drawn = new uPlot(options(at, width()), stacked(newest.current), at);
    plot.current = drawn;
    const resized = new ResizeObserver(() => drawn.setSize({ width: width(), height: HEIGHT }));
    resized.observe(at);
    return () => {
      resized.disconnect();
      drawn.destroy();
    };
  }, [theme]);
  useEffect(() => plot.current?.setData(stacked(minutes)), [minutes]);
  const last = minutes.at(-1);
  const now = last ? KINDS.reduce((sum, kind) => sum + calls(last, kind), 0) : 0;
  return (
    <div
      class="chart"
      ref={place}
      role="img"
      aria-label={`Calls per minute of the last hour, ${now} in this minute; below as numbers`}
    >
      {KINDS.map((kind) => (
        <i class={`unseen swatch of-${kind}`} data-colour={kind} key={kind} />
      ))}
    </div>
  );
};

const stacked = (minutes: Minute[]): uPlot.AlignedData => {
  const below = minutes.map(() => 0);
  const layers = KINDS.map((kind) =>
    minutes.map((minute, index) => {
      below[index] = (below[index] ?? 0) + calls(minute, kind);
      return below[index] ?? 0;
    }),
  );
  return [minutes.map((minute) => Date.parse(minute.start) / 1_000), ...layers.reverse()];
};

const options = (at: HTMLElement, width: number): uPlot.Options => {
  const colour = (kind: Kind): string => {
    const swatch = at.querySelector(`[data-colour="${kind}"]`);
    return swatch ? getComputedStyle(swatch).backgroundColor : "gray";
  };
  const ink = getComputedStyle(at).color;
  const axis = { stroke: ink, font: "11px Inter, system-ui, sans-serif", ticks: { show: false } };
  const bars = uPlot.paths.bars?.({ size: [0.8, 14], align: 1 });
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    padding: [6, 14, 0, 0],
    scales: {
      // The last bar stands to the right of its minute.
      x: { range: (_plot, first, last) => [first, last + 60] },
      y: { range: (_plot, _low, high) => [0, Math.max(4, Math.ceil((high ?? 0) * 1.1))] },
    },
    axes: [
      {
        ...axis,
        size: 26,
        grid: { show: false },
        space: 60,
        values: (_plot, ticks) => ticks.map((tick) => timeOfDay(tick * 1_000).slice(0, 5)),
      },
      {
        ...axis,
        size: 34,
        space: 24,
        grid: { stroke: "rgb(128 140 150 / .2)", width: 1 },
        incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000],
      },
    ],
    series: [
      {},
      ...[...KINDS].reverse().map(
        (kind): uPlot.Series => ({
          fill: colour(kind),
          stroke: colour(kind),
          width: 0,
          points: { show: false },
          ...(bars ? { paths: bars } : {}),
        }),
      ),
    ],
  };
};
