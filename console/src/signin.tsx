import { useState } from "preact/hooks";

import { Mark } from "./mark";
import { enter } from "./session";

export const SignIn = ({ why }: { why: string | undefined }) => {
  const [complaint, setComplaint] = useState(why);
  const [isBusy, setBusy] = useState(false);
  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    const fields = new FormData(event.currentTarget as HTMLFormElement);
    setBusy(true);
    try {
      await enter(String(fields.get("username")), String(fields.get("password")));
    } catch (failure) {
      setComplaint(failure instanceof Error ? failure.message : String(failure));
      setBusy(false);
    }
  };
  return (
    <main class="door">
      <form onSubmit={submit} aria-labelledby="door">
        <h1 id="door">
          <Mark /> CapConduit
        </h1>
        <label class="field">
          Username
          <input name="username" autocomplete="username" autocapitalize="none" required autofocus />
        </label>
        <label class="field">
          Password
          <input name="password" type="password" autocomplete="current-password" required />
        </label>
        <p class="complaint" role="alert">
          {complaint}
        </p>
        <button class="button strong" disabled={isBusy}>
          {isBusy ? "Signing in ..." : "Sign in"}
        </button>
      </form>
    </main>
  );
};
