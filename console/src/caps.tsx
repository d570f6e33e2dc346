// Caps as bars, by client and link: what is used, what is held, and the limit.

import { signal } from "@preact/signals";

import type { CapUse, LinkCaps } from "./api";
import type { Session } from "./session";
import { Trouble } from "./trouble";
import { count, windowName } from "./words";

/** From here on a cap is nearly full. */
const NEAR = 0.75;

const isFullestFirst = signal(false);

const ratio = ({ used, held, limit }: Pick<CapUse, "used" | "held" | "limit">): number =>
  limit === 0 ? 1 : (used + held) / limit;

/** How full the fullest of some caps is; 1 where there is no room. */
export const fullness = (caps: readonly CapUse[]): number => Math.max(0, ...caps.map(ratio));

interface Group {
  client: LinkCaps["client"];
  links: LinkCaps[];
}

const byClient = (links: readonly LinkCaps[]): Group[] => {
  const groups = new Map<number, Group>();
  for (const link of links) {
    const group = groups.get(link.client.id) ?? { client: link.client, links: [] };
    group.links.push(link);
    groups.set(link.client.id, group);
  }
  return [...groups.values()];
};

const fullest = (group: Group): number =>
  Math.max(...group.links.map((link) => fullness(link.caps)));

export const CapsPanel = ({ session }: { session: Session }) => {
  const found = session.caps.value.value;
  const groups = byClient(found?.links ?? []);
  if (isFullestFirst.value) groups.sort((a, b) => fullest(b) - fullest(a));
  const isSeller = session.side.user.role === "user";
  return (
    <section class="panel caps-panel" aria-labelledby="caps">
      <header>
        <h2 id="caps">
          Caps <span class="soft">used + held / limit</span>
        </h2>
        <button
          class="button small"
          aria-pressed={isFullestFirst.value}
          onClick={() => {
            isFullestFirst.value = !isFullestFirst.value;
          }}
        >
          Fullest first
        </button>
      </header>
      <Trouble of={session.caps} />
      <div class="body" tabIndex={0} role="region" aria-label="Caps, list">
        {found && groups.length === 0 && (
          <p class="empty">No client is linked to a campaign yet.</p>
        )}
        {groups.map((group) => (
          <ClientCaps key={group.client.id} group={group} isSeller={isSeller} />
        ))}
        {found && found.links.length < found.total && (
          <p class="empty">
            {count(found.total - found.links.length)} more links are not shown here.
          </p>
        )}
      </div>
    </section>
  );
};

const ClientCaps = ({ group, isSeller }: { group: Group; isSeller: boolean }) => {
  const { client, links } = group;
  const own = links[0]?.caps.filter((cap) => cap.scope === "client") ?? [];
  return (
    <div class="client">
      <h3>
        {client.name} <span class="soft">{client.clientIdentifier}</span>
      </h3>
      {own.map((cap) => (
        <Cap key={cap.window} cap={cap} of={`client ${client.name}`} />
      ))}
      {links.map((link) => (
        <div class="link" key={link.campaignClientSettingId}>
          <p class="name">
            <span>
              {link.campaign.name}
              {!isSeller && ` · ${link.user.username}`}
            </span>
            {link.status !== "active" && <b>inactive</b>}
          </p>
          {link.caps
            .filter((cap) => cap.scope !== "client")
            .map((cap) => (
              <Cap
                key={cap.scope + cap.window}
                cap={cap}
                of={`${cap.scope} ${link.campaign.name} to ${client.name}`}
              />
            ))}
        </div>
      ))}
    </div>
  );
};

type Compared = Pick<CapUse, "scope" | "used" | "held" | "limit"> & { window?: string | null };

/** One cap: a bar, with its numbers in words for whoever doesn't see it. */
export const Cap = ({ cap, of }: { cap: Compared; of: string }) => {
  const { scope, window, used, held, limit } = cap;
  const full = ratio(cap);
  const level = full >= 1 ? "full" : full >= NEAR ? "near" : "";
  const percent = (part: number): string =>
    `${limit === 0 ? 0 : Math.min(100, (100 * part) / limit)}%`;
  const words = `${used} used, ${held} held, limit ${limit}${full >= 1 ? ", full" : ""}`;
  return (
    <div class={`cap ${level}`}>
      <span class="what" aria-hidden="true">
        {scope !== "link" && scope !== "client" && `${scope} `}
        {windowName(window)}
      </span>
      <span
        class="bar"
        role="meter"
        aria-label={`Cap ${windowName(window)} of ${of}`}
        aria-valuemin={0}
        aria-valuemax={Math.max(limit, 1)}
        aria-valuenow={Math.min(used + held, limit)}
        aria-valuetext={words}
        title={words}
      >
        <span class="used" style={{ width: percent(used) }} />
        <span class="held" style={{ width: percent(held) }} />
      </span>
      <span class="numbers" aria-hidden="true">
        {full >= 1 && "full "}
        {count(used)}
        {held > 0 && ` + ${count(held)}`} / {count(limit)}
      </span>
    </div>
  );
};
