//! How the ledger's questions and answers look in Redis. The scripts say what they take.

use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{Script, ScriptInvocation};

use super::link::Session;
use super::{RedisSettings, unavailable_answer};
use crate::capacity::{
    Book, Cap, Claim, Correction, HoldId, Holder, LeaseClock, Leases, Refusal, Request, Scope,
    ScopeKind, Slot, Stage, Standing, Turn, Unavailable, Usage, Verdict, WindowKind, Windows,
};
use crate::ids::{CallId, CampaignId, LinkId};

// === names ===

pub(super) fn leases_name(session: &Session) -> String {
    format!("{}leases", session.base)
}

pub(super) fn scopes_name(session: &Session) -> String {
    format!("{}scopes", session.base)
}

pub(super) fn hold_name(session: &Session, id: &str) -> String {
    format!("{}h:{id}", session.base)
}

pub(super) fn cursor_name(session: &Session, campaign: CampaignId) -> String {
    format!("{}c:{campaign}", session.base)
}

fn account_name(session: &Session, scope: &str) -> String {
    format!("{}s:{scope}", session.base)
}

fn slots_name(session: &Session, scope: &str) -> String {
    format!("{}u:{scope}", session.base)
}

fn hold_id(hold: HoldId) -> String {
    format!("{}.{}", hold.call, hold.attempt)
}

fn read_hold_id(text: &str) -> Option<HoldId> {
    let (call, attempt) = text.rsplit_once('.')?;
    Some(HoldId { call: CallId::parse(call)?, attempt: attempt.parse().ok()? })
}

fn scope_code(scope: Scope) -> String {
    let kind = match scope.kind {
        ScopeKind::Link => 'l',
        ScopeKind::Client => 'c',
        ScopeKind::Campaign => 'p',
        ScopeKind::Seller => 's',
    };
    format!("{kind}{}", scope.id)
}

fn read_scope(text: &str) -> Option<Scope> {
    let mut chars = text.chars();
    let kind = match chars.next()? {
        'l' => ScopeKind::Link,
        'c' => ScopeKind::Client,
        'p' => ScopeKind::Campaign,
        's' => ScopeKind::Seller,
        _ => return None,
    };
    Some(Scope { kind, id: chars.as_str().parse().ok()? })
}

// === questions ===

pub(super) fn put_request(
    call: &mut ScriptInvocation<'_>,
    request: &Request,
    dry: bool,
    session: &Session,
    settings: &RedisSettings,
) {
    let (turn, campaign) = match request.turn {
        Turn::None => (0_i32, CampaignId(0)),
        Turn::Rotate(campaign) => (1, campaign),
        Turn::Advance(campaign) => (2, campaign),
    };
    let id = hold_id(request.hold);
    call.key(&session.epoch_name)
        .key(hold_name(session, &id))
        .key(leases_name(session))
        .key(cursor_name(session, campaign));

    let mut claims: Vec<&Claim> = Vec::new();
    let mut candidates = Vec::with_capacity(request.candidates.len() * 16);
    for candidate in &request.candidates {
        candidates.extend(double(candidate.link.0));
        for place in 0..4 {
            let number = candidate.claims.get(place).map_or(0, |claim| {
                let known = claims.iter().rposition(|known| known.scope == claim.scope);
                1 + known.unwrap_or_else(|| {
                    claims.push(claim);
                    claims.len() - 1
                })
            });
            candidates.extend(u16::try_from(number).unwrap_or(0).to_le_bytes());
        }
    }
    let moment = claims.first().map(|claim| claim.windows.moment());
    let slot = moment.map_or(0, |moment| Slot::of(moment).0);
    let mut header = now(settings);
    header.extend(millis(settings.leases.held));
    header.extend(millis(Leases::LAPSED));
    header.extend(slot.to_le_bytes());
    header.extend(i32::from(dry).to_le_bytes());
    header.extend(turn.to_le_bytes());
    call.arg(format!("{} open", session.epoch))
        .arg(&session.base)
        .arg(id)
        .arg(&settings.node)
        .arg(header)
        .arg(candidates);
    let mut packed = Vec::with_capacity(claims.len() * CLAIM_BYTES);
    for claim in claims {
        call.key(account_name(session, &scope_code(claim.scope)));
        pack_claim(&mut packed, claim);
    }
    call.arg(packed);
}

const CLAIM_BYTES: usize = 40;

fn pack_claim(packed: &mut Vec<u8>, claim: &Claim) {
    packed.extend(limit(claim.concurrency));
    packed.extend(limit(claim.volume[WindowKind::Total.index()]));
    for kind in WINDOWS {
        packed.extend(limit(claim.volume[kind.index()]));
        packed.extend(start(&claim.windows, kind));
    }
}

pub(super) fn put_standing(
    call: &mut ScriptInvocation<'_>,
    standing: &[Standing],
    session: &Session,
    settings: &RedisSettings,
) {
    let Leases { held, used, closed } = settings.leases;
    let mut header = now(settings);
    for length in [held, used, Leases::LAPSED, closed] {
        header.extend(millis(length));
    }
    call.key(&session.epoch_name).key(leases_name(session));
    call.arg(&*session.epoch).arg(&session.base).arg(&settings.node).arg(header);
    for one in standing {
        let id = hold_id(one.hold);
        let stage = match one.stage {
            Stage::Held => 0,
            Stage::Used => 1,
            Stage::Counted => 2,
            Stage::Returned => 3,
            Stage::Recorded => 4,
        };
        let scopes: Vec<_> = one.scopes.iter().map(|scope| scope_code(*scope)).collect();
        call.key(hold_name(session, &id));
        call.arg(id).arg(format!("{stage} {}", Slot::of(one.moment).0)).arg(scopes.join(","));
    }
}

pub(super) fn put_asked(
    call: &mut ScriptInvocation<'_>,
    asked: &[(Scope, Windows)],
    session: &Session,
    settings: &RedisSettings,
) {
    let mut header = now(settings);
    header.extend(millis(Leases::LAPSED));
    call.key(&session.epoch_name).key(leases_name(session));
    call.arg(&*session.epoch).arg(&session.base).arg(header);
    for (scope, windows) in asked {
        call.key(account_name(session, &scope_code(*scope)));
        call.arg(WINDOWS.map(|kind| start(windows, kind)).concat());
    }
}

pub(super) fn put_scopes(call: &mut ScriptInvocation<'_>, scopes: &[String], session: &Session) {
    call.key(&session.epoch_name);
    call.arg(&*session.epoch);
    for scope in scopes {
        call.key(account_name(session, scope)).key(slots_name(session, scope));
    }
}

/// One call per so many slots: a script's arguments have a limit.
pub(super) fn corrections<'a>(
    script: &'a Script,
    correction: &Correction,
    session: &Session,
) -> Vec<ScriptInvocation<'a>> {
    const SLOTS: usize = 500;
    let scope = scope_code(correction.scope);
    let call = |total: i64, slots: &[(Slot, i64)]| {
        let mut call = script.prepare_invoke();
        call.key(&session.epoch_name)
            .key(account_name(session, &scope))
            .key(slots_name(session, &scope));
        call.arg(&*session.epoch).arg(&session.base).arg(&scope).arg(total);
        for (slot, calls) in slots {
            call.arg(slot.0).arg(*calls);
        }
        call
    };
    let (first, rest) = correction.slots.split_at(correction.slots.len().min(SLOTS));
    std::iter::once(call(correction.total, first))
        .chain(rest.chunks(SLOTS).map(|slots| call(0, slots)))
        .collect()
}

const WINDOWS: [WindowKind; 4] =
    [WindowKind::Hour, WindowKind::Day, WindowKind::Week, WindowKind::Month];

fn limit(limit: Option<u32>) -> [u8; 4] {
    limit.map_or(-1, |limit| i32::try_from(limit).unwrap_or(i32::MAX)).to_le_bytes()
}

fn start(windows: &Windows, kind: WindowKind) -> [u8; 4] {
    Slot::of(windows.start(kind)).0.to_le_bytes()
}

fn now(settings: &RedisSettings) -> Vec<u8> {
    match &settings.clock {
        LeaseClock::Own => double(-1).to_vec(),
        LeaseClock::Manual(now) => double(now.load(Ordering::Acquire)).to_vec(),
    }
}

fn millis(duration: Duration) -> [u8; 8] {
    double(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

/// Numbers are doubles in Lua: whole ones are exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "ids and milliseconds stay far below 2^53")]
fn double(value: i64) -> [u8; 8] {
    (value as f64).to_le_bytes()
}

// === answers ===

pub(super) fn read_verdict(answer: &str) -> Result<Verdict, Unavailable> {
    try_verdict(answer).ok_or_else(|| unavailable_answer(answer))
}

fn try_verdict(answer: &str) -> Option<Verdict> {
    let mut words = answer.split(' ');
    let mut link = || words.next()?.parse::<i64>().ok();
    let granted = link()?;
    let rotated_by = usize::try_from(link()?).ok()?;
    let cursor = link()?;
    let words: Vec<_> = words.collect();
    let refusals = words.chunks(6).map(read_refusal).collect::<Option<_>>()?;
    let some = |id| (id != 0).then_some(LinkId(id));
    Some(Verdict {
        rotated_by,
        cursor: some(cursor),
        refusals,
        granted: some(granted),
        within_share: false,
    })
}

fn read_refusal(words: &[&str]) -> Option<Refusal> {
    let [link, scope, cap, used, held, limit] = words else { return None };
    let cap = match cap.parse::<usize>().ok()? {
        0 => Cap::Concurrency,
        window => Cap::Volume(*WindowKind::ALL.get(window - 1)?),
    };
    Some(Refusal {
        link: LinkId(link.parse().ok()?),
        scope: read_scope(scope)?,
        cap,
        used: used.parse().ok()?,
        held: held.parse().ok()?,
        limit: limit.parse().ok()?,
    })
}

pub(super) fn read_usage(answer: &str) -> Result<Usage, Unavailable> {
    let numbers: Option<Vec<u32>> = answer.split(' ').map(|word| word.parse().ok()).collect();
    match numbers.as_deref() {
        Some([live, used @ .., h0, h1, h2, h3, h4]) if used.len() == WindowKind::COUNT => {
            let mut usage = Usage { live: *live, ..Usage::default() };
            usage.used.copy_from_slice(used);
            usage.held = [*h0, *h1, *h2, *h3, *h4];
            Ok(usage)
        }
        _ => Err(unavailable_answer(answer)),
    }
}

/// None where nothing is left of the hold.
pub(super) fn read_holder(id: &str, hold: &str) -> Result<Option<Holder>, Unavailable> {
    const CLOSED: &str = "4";
    let parts: Vec<_> = hold.splitn(5, ';').collect();
    let [kept, slot, node, scopes, _verdict] = parts[..] else {
        return Err(unavailable_answer(hold));
    };
    if kept == CLOSED {
        return Ok(None);
    }
    let read = || {
        Some(Holder {
            hold: read_hold_id(id)?,
            held_at: Slot(slot.parse().ok()?).start(),
            scopes: scopes.split(',').map(read_scope).collect::<Option<_>>()?,
            settled: kept != "0",
            live: kept == "0" || kept == "1",
            node: node.to_owned(),
        })
    };
    read().map(Some).ok_or_else(|| unavailable_answer(hold))
}

pub(super) fn read_book(scope: &str, total: u32, slots: &[i64]) -> Result<Book, Unavailable> {
    let scope = read_scope(scope).ok_or_else(|| unavailable_answer(scope))?;
    let mut slots: Vec<_> = slots
        .chunks_exact(2)
        .map(|pair| {
            let slot = Slot(i32::try_from(pair[0]).unwrap_or_default());
            (slot, u32::try_from(pair[1]).unwrap_or_default())
        })
        .collect();
    slots.sort_unstable();
    Ok(Book { scope, total, slots })
}

/// What was answered, cut where it gets long.
pub(super) fn shortened(answer: &str) -> String {
    let mut short: String = answer.chars().take(80).collect();
    if short.len() < answer.len() {
        let _ = write!(short, "…");
    }
    short
}
