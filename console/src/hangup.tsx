// Hanging up a live call: only after it was said twice.

import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";

import { Failure, type LiveCall } from "./api";
import { calls } from "./live";
import { say } from "./toast";

const asked = signal<LiveCall | undefined>(undefined);

export const askToHangUp = (call: LiveCall): void => {
  asked.value = call;
};

interface Props {
  hangUp: (callId: string, reason: string) => Promise<void>;
}

export const HangUpDialog = ({ hangUp }: Props) => {
  const dialog = useRef<HTMLDialogElement>(null);
  const form = useRef<HTMLFormElement>(null);
  const [isBusy, setBusy] = useState(false);
  const call = asked.value;
  // What was said of one call is not said of another.
  useEffect(() => form.current?.reset(), [call?.callId]);
  useEffect(() => {
    if (call && !dialog.current?.open) dialog.current?.showModal();
    if (!call) dialog.current?.close();
  }, [call]);
  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    if (!call) return;
    const said = new FormData(event.currentTarget as HTMLFormElement);
    const reason = String(said.get("reason")).trim();
    setBusy(true);
    try {
      await hangUp(call.callId, reason);
      say("The call is being hung up.");
    } catch (failure) {
      // It ended, or another instance leads it.
      const isAbsent = failure instanceof Failure && failure.status === 404;
      say(isAbsent ? "No such call is up here any more." : `Not hung up: ${(failure as Error).message}`);
    }
    setBusy(false);
    // Meanwhile another call may be asked about.
    if (asked.value?.callId === call.callId) asked.value = undefined;
  };
  const isOver = call !== undefined && !calls.value.has(call.callId);
  return (
    <dialog
      ref={dialog}
      aria-labelledby="hang-up"
      onClose={() => {
        asked.value = undefined;
      }}
    >
      <form ref={form} onSubmit={submit}>
        <div>
          <h2 id="hang-up">Hang up this call?</h2>
          <p>
            From <b>{call?.callerIdNum ?? "a withheld number"}</b> to{" "}
            <b>{call?.incomingDidNumber}</b>
            {call?.client && (
              <>
                , with <b>{call.client.name}</b>
              </>
            )}
            . Both sides are cut off at once.
          </p>
        </div>
        <label class="field">
          Why (goes into the audit log and the call's record)
          <input name="reason" maxLength={60} autocomplete="off" />
        </label>
        <p role="status">{isOver && "The call has ended by itself."}</p>
        <div class="choices">
          <button
            type="button"
            class="button"
            autofocus
            onClick={() => {
              asked.value = undefined;
            }}
          >
            Keep the call
          </button>
          <button class="button danger strong" disabled={isBusy || isOver}>
            Hang up
          </button>
        </div>
      </form>
    </dialog>
  );
};
