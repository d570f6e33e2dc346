import { computed } from "@preact/signals";

import { CapsPanel } from "./caps";
import { Figures } from "./figures";
import { HangUpDialog } from "./hangup";
import { Banner, Head } from "./head";
import { connection } from "./live";
import { LivePanel } from "./livecalls";
import { LogPanel } from "./log";
import { type Session, standing } from "./session";
import { SignIn } from "./signin";
import { Toast } from "./toast";
import { LogDialog } from "./trace";
import { TrafficPanel } from "./traffic";

const isLost = computed(() => connection.value.is === "lost");

export const App = () => {
  const now = standing.value;
  switch (now.is) {
    case "asking":
      return (
        <p class="unseen" role="status">
          Asking who you are
        </p>
      );
    case "out":
      return <SignIn why={now.why} />;
    case "in":
      return <Screen session={now.session} />;
  }
};

const Screen = ({ session }: { session: Session }) => (
  <div class={isLost.value ? "screen stale" : "screen"}>
    <a class="skip" href="#live-calls">
      Skip to live calls
    </a>
    <Head session={session} />
    <Banner />
    <Figures session={session} />
    <main class="panels">
      <LivePanel session={session} />
      <CapsPanel session={session} />
      <LogPanel session={session} />
      <TrafficPanel session={session} />
    </main>
    <Toast />
    <LogDialog session={session} />
    {session.side.hangUp && <HangUpDialog hangUp={session.side.hangUp} />}
  </div>
);
