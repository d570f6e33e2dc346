// Dark or light: as the system says, unless the reader says otherwise.

import { signal } from "@preact/signals";

export type Theme = "auto" | "light" | "dark";

const KEY = "capconduit-theme";
const THEMES: readonly Theme[] = ["auto", "light", "dark"];

const kept = (): Theme => {
  const found = localStorage.getItem(KEY);
  return THEMES.find((theme) => theme === found) ?? "auto";
};

export const theme = signal<Theme>(kept());

/** Grows when colours may have changed: what is drawn is drawn anew. */
export const colours = signal(0);

export const applyTheme = (): void => {
  const { dataset } = document.documentElement;
  if (theme.value === "auto") delete dataset.theme;
  else dataset.theme = theme.value;
  colours.value += 1;
};

export const nextTheme = (): void => {
  theme.value = THEMES[(THEMES.indexOf(theme.value) + 1) % THEMES.length] ?? "auto";
  localStorage.setItem(KEY, theme.value);
  applyTheme();
};

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", applyTheme);
