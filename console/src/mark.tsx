/** The product's sign. */
export const Mark = () => (
  <svg viewBox="0 0 32 32" aria-hidden="true">
    <rect width="32" height="32" fill="#0f766e" />
    <path
      d="M7 21V11m6 10v-6m6 6V8m6 13v-4"
      stroke="#fff"
      stroke-width="3"
      stroke-linecap="round"
    />
    <path d="M5 25.5h22" stroke="#5eead4" stroke-width="2" stroke-linecap="round" />
  </svg>
);
