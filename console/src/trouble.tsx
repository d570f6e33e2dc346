import type { Polled } from "./polled";

/** Says why something isn't as new as it should be. */
export const Trouble = <T,>({ of }: { of: Polled<T> }) => (
  <div role="status">{of.trouble.value && <p class="trouble">Not up to date: {of.trouble}</p>}</div>
);
