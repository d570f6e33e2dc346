// Something that is asked for now and then, and sooner when it is known to have changed.

import { type ReadonlySignal, signal } from "@preact/signals";

import { Failure } from "./api";

export interface Polled<T> {
  /** The newest that was got; none yet at first. */
  readonly value: ReadonlySignal<T | undefined>;
  /** Why the last try failed; the value is an older one then. */
  readonly trouble: ReadonlySignal<string | undefined>;
  /** Asks soon, however often this is called. */
  soon(): void;
  stop(): void;
}

export interface Pace {
  everyMs: number;
  /** What `soon` is: at least this long after the last answer. */
  soonMs: number;
}

export const poll = <T>(
  read: () => Promise<T>,
  { everyMs, soonMs }: Pace,
  refused: () => void,
): Polled<T> => {
  const value = signal<T | undefined>(undefined);
  const trouble = signal<string | undefined>(undefined);
  let timer: ReturnType<typeof setTimeout> | undefined;
  let isSoon = false;
  let isReading = false;
  let isStopped = false;

  const next = (delayMs: number): void => {
    clearTimeout(timer);
    timer = setTimeout(run, delayMs);
  };
  const run = async (): Promise<void> => {
    isSoon = false;
    isReading = true;
    try {
      const found = await read();
      if (isStopped) return;
      value.value = found;
      trouble.value = undefined;
    } catch (failure) {
      if (isStopped) return;
      trouble.value = failure instanceof Error ? failure.message : String(failure);
      if (failure instanceof Failure && failure.status === 401) refused();
    } finally {
      isReading = false;
    }
    next(isSoon ? soonMs : everyMs);
  };
  void run();
  return {
    value,
    trouble,
    soon() {
      if (isSoon || isStopped) return;
      isSoon = true;
      if (!isReading) next(soonMs);
    },
    stop() {
      isStopped = true;
      clearTimeout(timer);
    },
  };
};
