import { connection } from "./live";
import { Mark } from "./mark";
import { exit, now, type Session } from "./session";
import { nextTheme, theme } from "./theme";
import { duration, timeOfDay } from "./words";

const ROLES = { admin: "admin", staff: "staff", user: "seller" };

export const Head = ({ session }: { session: Session }) => {
  const { username, role } = session.side.user;
  return (
    <header class="head">
      <h1 class="brand">
        <Mark /> CapConduit
      </h1>
      <ConnectionSign />
      <span class="space" />
      <span class="soft nowrap clock">{timeOfDay(now.value)}</span>
      <span class="nowrap">
        <b>{username}</b> <span class="soft">{ROLES[role]}</span>
      </span>
      <button class="button small" onClick={nextTheme}>
        Theme: {theme}
      </button>
      <button class="button small" onClick={() => void exit()}>
        Sign out
      </button>
    </header>
  );
};

const ConnectionSign = () => {
  const { is } = connection.value;
  const words = { connecting: "Connecting", open: "Live", lost: "Disconnected" };
  return (
    <span class={`connection ${is}`} role="status">
      {words[is]}
    </span>
  );
};

/** Says how old the picture is while nothing is heard. */
export const Banner = () => {
  const standing = connection.value;
  if (standing.is !== "lost") return null;
  // Counted anew with every tick of the clock.
  const seconds = (now.value && Date.now() - standing.since) / 1_000;
  return (
    <p class="banner">
      Disconnected: live calls are as they were at {timeOfDay(standing.since)}, {duration(seconds)}{" "}
      ago. Calls go on; this page is trying to come back.
    </p>
  );
};
