// Moving through a table by keyboard: up and down go from row to row.

export const moveFocus = (event: KeyboardEvent): void => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const table = event.currentTarget as HTMLElement;
  const rows = [...table.querySelectorAll<HTMLButtonElement>("tbody button")];
  const here = rows.indexOf(document.activeElement as HTMLButtonElement);
  if (step === undefined || here < 0) return;
  event.preventDefault();
  rows[here + step]?.focus();
};
