import { signal } from "@preact/signals";

const words = signal("");
let timer: ReturnType<typeof setTimeout> | undefined;

/** Tells something that was done, for a while. */
export const say = (text: string): void => {
  words.value = text;
  clearTimeout(timer);
  timer = setTimeout(() => {
    words.value = "";
  }, 5_000);
};

export const Toast = () => (
  <div role="status">{words.value !== "" && <p class="toast">{words}</p>}</div>
);
