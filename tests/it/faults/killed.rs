//! The service is killed twenty times under sixty calls in every state. Whoever talks
//! goes on talking, and every call has the record that its caller would have written.

use std::collections::HashSet;
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
use crate::support::service::Service;
use crate::support::wait::{eventually, ms, seconds};

const ROUNDS: usize = 20;
/// They talk through all rounds.
const TALKERS: usize = 30;
/// Those who come around each kill, as many of each kind.
const COMERS_OF_A_KIND: usize = 5;
/// What a caller may miss of the other side, whatever becomes of the service.
const LONGEST_PAUSE: Duration = ms(100);
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

/// How a call went, as its caller saw it.
#[derive(Debug)]
struct Seen {
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
async fn call(
    sip_port: u16,
    invite: Invite,
    kind: Kind,
    patience: Duration,
    media: &Media,
) -> Seen {
    let caller = invite.number().to_owned();
    let line = line_of(&invite);
    let mut phone = Phone::invite_at(sip_port, invite).await;
    let mut seen = Seen { caller, status: 0, answered: None, ended: Instant::now(), heard: None };
    let final_answer = |message: &crate::support::sip::Message| message.final_status().is_some();
    if kind == Kind::Leaves && phone.try_wait_for(patience, final_answer).await.is_none() {
        seen.status = phone.cancel().await;
        seen.answered = (seen.status == 200).then(Instant::now);
    } else {
        seen.status = phone.answer().await;
        if seen.status == 200 {
            seen.answered = Some(Instant::now());
            media.talk(line, phone.audio_port().expect("an answer says where"));
            if kind == Kind::Brief {
                assert!(phone.hung_up(seconds(20)).await, "the client hangs up, and is heard");
            } else {
                sleep(patience).await;
                phone.hang_up().await;
            }
            seen.heard = Some(media.hush(line));
        }
    }
    seen.ended = Instant::now();
    seen
}

/// The number of a call's line.
fn line_of(invite: &Invite) -> u32 {
    invite.call_id.split('-').next().unwrap().parse().unwrap()
}

/// The one record of a call says what its caller saw, as far as anybody can know.
fn assert_record(seen: &Seen, logs: &[Value], dark: &Dark) {
    let own: Vec<&Value> = logs.iter().filter(|log| log["callerIdNum"] == *seen.caller).collect();
    let in_the_dark = dark.hides(seen.ended);
    let log = match own[..] {
        [log] => log,
        // One who left before anybody knew of the call.
        [] if seen.status == 487 && dark.keeps_waiting(seen.ended) => return,
        _ => panic!("one log for {seen:?}, {dark:?}: {own:#?}"),
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
    assert!(is_right, "{seen:?}, {dark:?}: {log:#}");
    if let Some(answered) = seen.answered
        && told == ("ANSWERED", "answered")
        && !dark.hides(answered)
    {
        let talked = (seen.ended - answered).as_secs_f64();
        let billed = log["billsecSeconds"].as_f64().unwrap();
        assert!((billed - talked).abs() < 1.5, "{billed} s of {talked} s: {seen:?} {log:#}");
    }
}

struct Round {
    seen: Vec<Seen>,
    dark: Dark,
    adopted_in: Duration,
}

/// The ids of the calls that talk.
async fn talking(service: &Service) -> HashSet<String> {
    let live = service.live().await;
    let talks = live.iter().filter(|call| call["state"] == "talking");
    talks.map(|call| call["callId"].as_str().unwrap().to_owned()).collect()
}

async fn round(
    service: &mut Service,
    media: &Media,
    talkers: &HashSet<String>,
    rng: &mut StdRng,
) -> Round {
    let sip_port = service.sip_port;
    let kill_at = Instant::now() + ms(800);
    let comers: Vec<_> = KINDS
        .into_iter()
        .cycle()
        .take(COMERS_OF_A_KIND * KINDS.len())
        .map(|kind| {
            let invite =
                Invite { audio_port: media.caller_port, ..Invite::to(service, kind.number()) };
            // Many in the last moment before the kill: they are being routed.
            let before = if rng.random_bool(0.4) { 40 } else { 750 };
            let at = kill_at - ms(rng.random_range(0..before)) + ms(10);
            (kind, invite, at, ms(rng.random_range(100..900)))
        })
        .collect();
    let comers = comers.into_iter().map(async |(kind, invite, at, patience)| {
        sleep_until(at.into()).await;
        call(sip_port, invite, kind, patience, media).await
    });
    let killed = async {
        sleep_until(kill_at.into()).await;
        service.kill();
        let from = Instant::now();
        service.start_again().await;
        eventually("those who talked are live", seconds(10), async || {
            talkers.is_subset(&talking(service).await).then_some(())
        })
        .await;
        (Dark { from, until: Instant::now() }, from.elapsed())
    };
    let (seen, (dark, adopted_in)) = join(join_all(comers), killed).await;
    Round { seen, dark, adopted_in }
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
    eprintln!("led again after at most {adopted:?}");
    for (caller, line, phone) in &mut talkers {
        phone.hang_up().await;
        let heard = media.hush(*line);
        for ear in [heard.caller, heard.client] {
            let lost = heard.sent.saturating_sub(ear.packets);
            assert!(lost < 20, "{caller} missed {lost} of {} packets", heard.sent);
        }
    }
    assert!(own <= LONGEST_PAUSE, "{own:?}");
    assert!(adopted <= ADOPTED_WITHIN, "{adopted:?}");

    service.assert_clean().await;
    let logs = eventually("the talkers' logs", seconds(10), async || {
        let logs = service.logs_so_far().await;
        let has = |caller: &String| logs.iter().any(|log| log["callerIdNum"] == **caller);
        talkers.iter().all(|(caller, ..)| has(caller)).then_some(logs)
    })
    .await;
    for Round { seen, dark, .. } in &rounds {
        for seen in seen {
            assert_record(seen, &logs, dark);
        }
    }
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
