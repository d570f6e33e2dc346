//! The service is killed twenty times under sixty calls in every state. Whoever talks
//! goes on talking, and every call has the record that its caller would have written.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::time::{sleep, sleep_until};

use crate::support::clients::{Manner, Phones};
use crate::support::media::{Heard, Media};
use crate::support::phone::{Invite, Phone};
use crate::support::seller::Campaign;
use crate::support::service::{Service, items};
use crate::support::wait::{eventually, ms, seconds};

const ROUNDS: usize = 20;
/// They talk through all rounds.
const TALKERS: usize = 30;
/// Those who come around each kill, as many of each kind.
const COMERS_OF_A_KIND: usize = 6;
/// Of all these, some comers are late for the kill, and some are gone.
const UP_AT_A_KILL: usize = 50;
/// What a caller may miss of the other side, whatever becomes of the service.
const LONGEST_PAUSE: Duration = ms(100);
/// The same, with what this machine had its part in.
const LONGEST_PAUSE_OF_ALL: Duration = ms(250);
/// Packets that may get lost of one call, from its beginning to its end.
const MOST_LOST: u32 = 20;
/// Long enough to hear something.
const SHORTEST_TALK: Duration = ms(150);
/// From the service's start until it leads all calls again.
const ADOPTED_WITHIN: Duration = seconds(2);

/// What a caller meets with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// An answer at once; the caller hangs up.
    Quick,
    /// A second of ringing first.
    Rings,
    /// A client who is busy first.
    Onward,
    /// A client who hangs up soon.
    Brief,
    /// Nobody answers.
    Vain,
    /// The caller doesn't wait for the answer.
    Leaves,
}

const KINDS: [Kind; 6] =
    [Kind::Quick, Kind::Rings, Kind::Onward, Kind::Brief, Kind::Vain, Kind::Leaves];

impl Kind {
    const fn number(self) -> &'static str {
        match self {
            Self::Quick => "+15550102301",
            Self::Rings | Self::Leaves => "+15550102302",
            Self::Onward => "+15550102303",
            Self::Brief => "+15550102304",
            Self::Vain => "+15550102305",
        }
    }
}

/// One who comes around a kill.
struct Comer {
    kind: Kind,
    invite: Invite,
    comes: Instant,
    /// When it doesn't wait or talk any longer.
    goes: Instant,
}

/// How a call went, as its caller saw it.
#[derive(Debug)]
struct Seen {
    kind: Kind,
    caller: String,
    /// The final answer.
    status: u16,
    answered: Option<Instant>,
    ended: Instant,
    /// What both sides heard of each other.
    heard: Option<Heard>,
}

/// When nobody led the calls: from the kill until the next run led them all.
#[derive(Clone, Copy, Debug)]
struct Dark {
    from: Instant,
    until: Instant,
}

impl Dark {
    /// Whether it was dark then, or so close that the events may have been missed.
    fn hides(&self, moment: Instant) -> bool {
        (self.from - ms(100)..self.until + ms(100)).contains(&moment)
    }

    /// Whether a caller may still have been waiting in the dialplan then, which asks for
    /// the application twice a second.
    fn keeps_waiting(&self, moment: Instant) -> bool {
        (self.from - ms(100)..self.until + ms(600)).contains(&moment)
    }
}

async fn set_up(service: &Service, media: &Media) -> (Vec<Phones>, Vec<Campaign>) {
    let manner =
        |ring_ms| Manner { audio_port: Some(media.client_port), ..Manner::answers_after(ring_ms) };
    let clients = vec![
        Phones::start(service, manner(30)).await,
        Phones::start(service, manner(1_000)).await,
        Phones::refusing(service, 486).await,
        Phones::start(service, manner(30).hangs_up_after(250)).await,
        Phones::start(service, Manner::rings_forever()).await,
    ];
    let mut ids = Vec::new();
    for client in &clients {
        ids.push(service.client(&client.contact()).await);
    }
    let seller = service.seller().await;
    let mut campaigns = Vec::new();
    for (kind, ring_seconds, links) in [
        (Kind::Quick, 20, &[0][..]),
        (Kind::Rings, 20, &[1]),
        (Kind::Onward, 20, &[2, 0]),
        (Kind::Brief, 20, &[3]),
        (Kind::Vain, 1, &[4]),
    ] {
        let campaign = seller.campaign(service, kind.number(), "priority", ring_seconds).await;
        for (place, client) in links.iter().enumerate() {
            campaign.link(ids[*client], json!({"forwardingPriority": place + 1})).await;
        }
        campaigns.push(campaign);
    }
    (clients, campaigns)
}

/// One caller, from the first word to the last.
async fn call(sip_port: u16, comer: Comer, media: &Media) -> Seen {
    let Comer { kind, invite, comes, goes } = comer;
    sleep_until(comes.into()).await;
    let caller = invite.number().to_owned();
    let line = line_of(&invite);
    let mut phone = Phone::invite_at(sip_port, invite).await;
    let mut seen =
        Seen { kind, caller, status: 0, answered: None, ended: Instant::now(), heard: None };
    let final_answer = |message: &crate::support::sip::Message| message.final_status().is_some();
    let patience = goes.saturating_duration_since(Instant::now());
    if kind == Kind::Leaves && phone.try_wait_for(patience, final_answer).await.is_none() {
        seen.status = phone.cancel().await;
        seen.answered = (seen.status == 200).then(Instant::now);
    } else {
        seen.status = phone.answer().await;
        if seen.status == 200 {
            let answered = Instant::now();
            seen.answered = Some(answered);
            media.talk(line, phone.audio_port().expect("an answer says where"));
            if kind == Kind::Brief {
                assert!(phone.hung_up(seconds(20)).await, "the client hangs up, and is heard");
                seen.heard = Some(media.left(line));
            } else {
                sleep_until(goes.max(answered + SHORTEST_TALK).into()).await;
                seen.heard = Some(media.hush(line));
                phone.hang_up().await;
            }
        }
    }
    seen.ended = Instant::now();
    seen
}

/// The number of a call's line.
fn line_of(invite: &Invite) -> u32 {
    invite.call_id.split('-').next().unwrap().parse().unwrap()
}

/// What of the record of a call isn't what its caller saw, as far as anybody can know.
fn wrong(seen: &Seen, logs: &[Value], dark: &Dark) -> Option<String> {
    let own: Vec<&Value> = logs.iter().filter(|log| log["callerIdNum"] == *seen.caller).collect();
    let in_the_dark = dark.hides(seen.ended);
    let log = match own[..] {
        [log] => log,
        // One who left before anybody knew of the call.
        [] if seen.status == 487 && dark.keeps_waiting(seen.ended) => return None,
        _ => return Some(format!("{} logs", own.len())),
    };
    let told = (log["callStatus"].as_str().unwrap(), log["reason"].as_str().unwrap());
    let is_right = match (seen.status, told) {
        (200, ("ANSWERED", "answered"))
        | (480, ("NOANSWER", "all_no_answer"))
        | (487, ("CANCELED", "caller_abandoned")) => true,
        (200, ("ANSWERED", "interrupted")) | (487, ("FAILED", "interrupted")) => in_the_dark,
        // Answered and over while nobody looked.
        (200, ("FAILED", "interrupted")) => in_the_dark && dark.hides(seen.answered.unwrap()),
        _ => false,
    };
    if !is_right {
        return Some(format!("it is told as {told:?}"));
    }
    if let Some(answered) = seen.answered
        && told == ("ANSWERED", "answered")
        && !dark.hides(answered)
    {
        let talked = (seen.ended - answered).as_secs_f64();
        let billed = log["billsecSeconds"].as_f64().unwrap();
        if (billed - talked).abs() >= 1.5 {
            return Some(format!("{billed} s of {talked} s are billed"));
        }
    }
    None
}

/// How much later the moment was.
fn seconds_from(from: Instant, moment: Instant) -> f64 {
    let later = moment.saturating_duration_since(from);
    later.as_secs_f64() - from.saturating_duration_since(moment).as_secs_f64()
}

/// Every record says what its caller saw.
fn assert_records(rounds: &[Round], logs: &[Value]) {
    let mut defects = Vec::new();
    for Round { seen, dark, .. } in rounds {
        for seen in seen {
            let since = |moment: Instant| seconds_from(dark.from, moment);
            if let Some(what) = wrong(seen, logs, dark) {
                let Seen { kind, caller, status, answered, ended, .. } = seen;
                let (answered, ended) = (answered.map(since), since(*ended));
                let dark = since(dark.until);
                defects.push(format!(
                    "{kind:?} {caller}, {status}, answered {answered:?} s and ended {ended} s \
                     after the kill, which hid {dark} s: {what}"
                ));
            }
        }
    }
    assert!(defects.is_empty(), "{defects:#?}");
}

struct Round {
    /// The live calls in the moment of the kill.
    up: Vec<Value>,
    seen: Vec<Seen>,
    dark: Dark,
    adopted_in: Duration,
}

impl Round {
    /// How many calls were in this state at the kill.
    fn up_in(&self, state: &str) -> usize {
        self.up.iter().filter(|call| call["state"] == state).count()
    }
}

/// The ids of the calls that talk.
async fn talking(service: &Service) -> HashSet<String> {
    let live = service.live().await;
    let talks = live.iter().filter(|call| call["state"] == "talking");
    talks.map(|call| call["callId"].as_str().unwrap().to_owned()).collect()
}

/// Of each kind one comes in the last moment, so that it is being routed at the kill; one
/// goes in that moment; and the others are there before it and for some time after it.
fn comers(service: &Service, media: &Media, kill_at: Instant, rng: &mut StdRng) -> Vec<Comer> {
    let mut comers = Vec::new();
    for place in 0..COMERS_OF_A_KIND {
        for kind in KINDS {
            let before = match (place, kind) {
                (0, _) => rng.random_range(0..40),
                // It doesn't last.
                (_, Kind::Brief) => rng.random_range(40..240),
                _ => rng.random_range(60..900),
            };
            let goes = if place == 1 {
                kill_at - ms(rng.random_range(0..15))
            } else {
                kill_at + ms(rng.random_range(50..1_600))
            };
            comers.push(Comer {
                kind,
                invite: Invite {
                    audio_port: media.caller_port,
                    ..Invite::to(service, kind.number())
                },
                comes: kill_at + ms(10) - ms(before),
                goes,
            });
        }
    }
    comers
}

/// Whether each call that was up is live again, or has ended and its log is there.
async fn are_accounted_for(service: &Service, up: &[Value]) -> bool {
    // One for which nothing had been held yet comes as a new call of the same caller.
    let is_same = |before: &Value, now: &Value| {
        let same = |name: &str| before[name] == now[name];
        same("callId") || before["state"] == "routing" && same("callerIdNum")
    };
    let is_in = |known: &[Value], call: &Value| known.iter().any(|now| is_same(call, now));
    let live = service.live().await;
    let missing: Vec<&Value> = up.iter().filter(|call| !is_in(&live, call)).collect();
    if missing.is_empty() {
        return true;
    }
    let newest = service.admin().get("/api/admin/logs?per_page=200").await;
    missing.iter().all(|call| is_in(items(&newest), call))
}

/// Of all who came nothing is left: no leg, no bridge, no live call.
async fn only_talkers_are_left(service: &Service) {
    eventually("what others left behind is gone", seconds(8), async || {
        let channels = service.ari("channels").await.as_array()?.len();
        let bridges = service.ari("bridges").await.as_array()?.len();
        let left = (channels, bridges, service.live().await.len());
        (left == (2 * TALKERS, TALKERS, TALKERS)).then_some(())
    })
    .await;
}

async fn round(
    service: &mut Service,
    media: &Media,
    talkers: &HashSet<String>,
    rng: &mut StdRng,
) -> Round {
    let sip_port = service.sip_port;
    let kill_at = Instant::now() + seconds(1);
    let comers = comers(service, media, kill_at, rng);
    let comers = comers.into_iter().map(|comer| call(sip_port, comer, media));
    let killed = async {
        sleep_until(kill_at.into()).await;
        let up = service.live().await;
        service.kill();
        let from = Instant::now();
        service.start_again().await;
        eventually("those who talked are live", seconds(10), async || {
            talkers.is_subset(&talking(service).await).then_some(())
        })
        .await;
        let dark = Dark { from, until: Instant::now() };
        eventually("every call is live again, or has its log", seconds(10), async || {
            are_accounted_for(service, &up).await.then_some(())
        })
        .await;
        (up, dark, from.elapsed())
    };
    let (seen, (up, dark, adopted_in)) = join(join_all(comers), killed).await;
    only_talkers_are_left(service).await;
    Round { up, seen, dark, adopted_in }
}

/// Calls were up in every state when the service was killed.
fn assert_all_states(rounds: &[Round]) {
    let mut sums = BTreeMap::new();
    for round in rounds {
        let up = round.up.len();
        assert!(up >= UP_AT_A_KILL, "{up} calls were up: {:#?}", round.up);
        for state in ["routing", "ringing", "talking", "ending"] {
            *sums.entry(state).or_insert(0) += round.up_in(state);
        }
        for state in ["ringing", "talking"] {
            assert!(round.up_in(state) > 0, "none was {state}: {:#?}", round.up);
        }
    }
    eprintln!("in the moments of the kills, calls were up in these states: {sums:?}");
    for (state, sum) in sums {
        assert!(sum > 0, "none was {state} at any kill");
    }
}

#[tokio::test]
async fn killed_twenty_times_it_leads_every_call_on_and_nobody_hears_it() {
    let mut service = Service::prepare();
    service.patience = seconds(20);
    service.start_first().await;
    let media = Media::start(&service);
    let (_clients, campaigns) = set_up(&service, &media).await;
    let mut talkers = Vec::new();
    for _ in 0..TALKERS {
        let invite =
            Invite { audio_port: media.caller_port, ..Invite::to(&service, Kind::Quick.number()) };
        let (caller, line) = (invite.number().to_owned(), line_of(&invite));
        let mut phone = Phone::invite(&service, invite).await;
        assert_eq!(phone.answer().await, 200);
        media.talk(line, phone.audio_port().unwrap());
        talkers.push((caller, line, phone));
    }
    let ids = eventually("they all talk", seconds(5), async || {
        let ids = talking(&service).await;
        (ids.len() == TALKERS).then_some(ids)
    })
    .await;
    // What there is without a kill: of calls, and of a line past Asterisk.
    sleep(seconds(5)).await;
    let longest = talkers.iter().map(|(_, line, _)| media.heard(*line).longest()).max().unwrap();
    let machine = media.control().longest();
    eprintln!("without a kill: silence of at most {longest:?} in calls, {machine:?} past Asterisk");

    let began = Instant::now();
    let mut rng = StdRng::seed_from_u64(20);
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(round(&mut service, &media, &ids, &mut rng).await);
    }

    assert_all_states(&rounds);
    let control = media.control();
    let comers = || rounds.iter().flat_map(|round| &round.seen);
    let mut heard: Vec<Heard> = comers().filter_map(|seen| seen.heard.clone()).collect();
    heard.extend(talkers.iter().map(|(_, line, _)| media.heard(*line)));
    let all = heard.iter().map(Heard::longest).max().unwrap();
    let own = heard.iter().map(|heard| heard.longest_beside(&control, began)).max().unwrap();
    let adopted = rounds.iter().map(|round| round.adopted_in).max().unwrap();
    let machine = control.longest();
    eprintln!(
        "{ROUNDS} kills: silence of at most {all:?} in calls, {machine:?} past Asterisk, \
         {own:?} in calls without what was missed past Asterisk too"
    );
    eprintln!("all calls were led again, or recorded, after at most {adopted:?}");
    // Of a client who hung up, its caller goes on to send.
    let lasting = comers().filter(|seen| seen.kind != Kind::Brief);
    let lost = lasting.filter_map(|seen| seen.heard.as_ref()).map(Heard::lost).max().unwrap();
    eprintln!("comers lost at most {lost} packets each");
    assert!(lost < MOST_LOST, "{lost}");
    for (caller, line, phone) in &mut talkers {
        let heard = media.hush(*line);
        phone.hang_up().await;
        assert!(heard.lost() < MOST_LOST, "{caller} lost {}", heard.lost());
    }
    assert!(own <= LONGEST_PAUSE, "{own:?}");
    assert!(all <= LONGEST_PAUSE_OF_ALL, "{all:?}");
    assert!(adopted <= ADOPTED_WITHIN, "{adopted:?}");

    service.assert_clean().await;
    let logs = eventually("the talkers' logs", seconds(10), async || {
        let logs = service.logs_so_far().await;
        let has = |caller: &String| logs.iter().any(|log| log["callerIdNum"] == **caller);
        talkers.iter().all(|(caller, ..)| has(caller)).then_some(logs)
    })
    .await;
    assert_records(&rounds, &logs);
    for (caller, ..) in &talkers {
        let own: Vec<&Value> = logs.iter().filter(|log| log["callerIdNum"] == **caller).collect();
        let [log] = own[..] else { panic!("one log for {caller}: {own:#?}") };
        assert_eq!(log["reason"], "answered");
    }
    let unseen = comers().filter(|seen| seen.status == 487).count();
    eprintln!(
        "{} calls, {} records, {unseen} callers left",
        comers().count() + TALKERS,
        logs.len()
    );
    let answered = logs.iter().filter(|log| log["callStatus"] == "ANSWERED").count() as u64;
    let mut used = 0;
    for campaign in &campaigns {
        used += campaign.links().await.iter().map(|link| link.total()).sum::<u64>();
    }
    assert_eq!(used, answered, "what was answered is what is used");
}

#[tokio::test]
async fn a_single_call_is_led_again_within_two_seconds_of_the_next_start() {
    let mut service = Service::start().await;
    let media = Media::start(&service);
    let (_clients, _campaigns) = set_up(&service, &media).await;
    let mut caller = Phone::call(&service, Kind::Quick.number()).await;
    assert_eq!(caller.answer().await, 200);
    service.kill();
    let started = Instant::now();
    service.start_again().await;
    eventually("it talks", seconds(10), async || {
        (service.live_in("talking").await == 1).then_some(())
    })
    .await;
    let adopted = started.elapsed();
    eprintln!("a single call is led again {adopted:?} after the start");
    assert!(adopted <= ADOPTED_WITHIN, "{adopted:?}");
    caller.hang_up().await;
    service.assert_clean().await;
}
