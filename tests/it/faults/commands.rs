//! Commands whose answers are late, lost, or not what they should be: what was
//! done is looked up, and nothing is done twice.

use std::time::Instant;

use crate::support::scripted::{Door, Fault, Flow};
use crate::support::wait::{eventually, ms, seconds};

use super::scene::{NORMAL, NUMBER, Scene, UNANSWERED, outcome, results};

/// How often a command of one call is asked for where nothing goes wrong: only the
/// bridge has two whom it takes.
fn usually_asked(command: &str) -> usize {
    if command == "add to bridge" { 2 } else { 1 }
}

/// However a command of the way to an answered call fails once, the call is
/// answered by its first client, who is dialled once; and what was done is found, not
/// done again.
async fn is_answered_despite(command: &'static str, fault: Fault) {
    assert_eq!(is_answered_after(command, fault).await, 0, "{command} {fault:?}");
}

/// The same of a command that wasn't carried out: it is asked for once more.
async fn is_answered_by_asking_again(command: &'static str, fault: Fault) {
    assert_eq!(is_answered_after(command, fault).await, 1, "{command} {fault:?}");
}

/// How often it was asked for again.
async fn is_answered_after(command: &'static str, fault: Fault) -> usize {
    let scene = Scene::set(1, 20).await;
    scene.switch.fail(command, 0, 1, fault);
    let (caller, leg) = scene.talking().await;
    assert_eq!(scene.switch.dialled_so_far(), 1, "{command} {fault:?}");
    assert!(scene.switch.bridged_with(&caller).contains(&leg), "{command} {fault:?}");
    assert!(scene.switch.is_up(&caller));
    let log = scene.end_with(&caller).await;
    assert_eq!(outcome(&log), ("ANSWERED", "answered"), "{command} {fault:?}");
    assert_eq!(results(&log), ["answered"]);
    scene.switch.asked(command) - usually_asked(command)
}

/// This client takes the call, after what became of the others.
async fn is_answered_in_the_end(scene: &Scene, caller: &str, leg: &str, others: &[&str]) {
    scene.switch.answer(leg);
    scene.until_state("talking").await;
    let log = scene.end_with(caller).await;
    assert_eq!(results(&log), [others, &["answered"]].concat());
}

#[tokio::test]
async fn a_bridge_whose_answer_was_lost_is_looked_up() {
    is_answered_despite("create bridge", Fault::AnswerLost).await;
}

#[tokio::test]
async fn a_bridge_that_was_asked_for_over_a_closing_connection_is_asked_for_again() {
    is_answered_by_asking_again("create bridge", Fault::Lost).await;
}

#[tokio::test]
async fn a_bridge_whose_answer_never_comes_is_looked_up() {
    is_answered_despite("create bridge", Fault::Unanswered).await;
}

#[tokio::test]
async fn a_caller_whose_bridging_was_not_confirmed_is_looked_up() {
    is_answered_despite("add to bridge", Fault::AnswerLost).await;
}

#[tokio::test]
async fn a_caller_whose_bridging_got_lost_is_bridged() {
    is_answered_by_asking_again("add to bridge", Fault::Lost).await;
}

/// Not in the application yet: the answer to the creation overtook it.
#[tokio::test]
async fn a_channel_that_is_not_in_the_application_yet_is_asked_for_again() {
    is_answered_by_asking_again("add to bridge", Fault::Refused(422)).await;
    is_answered_by_asking_again("dial", Fault::Refused(409)).await;
}

#[tokio::test]
async fn a_leg_whose_creation_was_not_confirmed_is_used() {
    is_answered_despite("create channel", Fault::AnswerLost).await;
}

#[tokio::test]
async fn a_leg_whose_creation_was_never_answered_is_used() {
    is_answered_despite("create channel", Fault::Unanswered).await;
}

#[tokio::test]
async fn a_leg_that_was_asked_for_over_a_closing_connection_is_asked_for_again() {
    is_answered_by_asking_again("create channel", Fault::Lost).await;
}

#[tokio::test]
async fn a_leg_that_exists_already_is_the_firsts_success() {
    is_answered_despite("create channel", Fault::DoneButRefused(409)).await;
}

#[tokio::test]
async fn a_leg_that_enters_before_its_creation_is_answered_is_dialled_once() {
    is_answered_despite("create channel", Fault::AnsweredLate(ms(600))).await;
}

#[tokio::test]
async fn a_dial_that_was_not_confirmed_is_not_repeated() {
    is_answered_despite("dial", Fault::AnswerLost).await;
    is_answered_despite("dial", Fault::Unanswered).await;
}

#[tokio::test]
async fn a_dial_that_is_refused_as_done_already_is_done() {
    is_answered_despite("dial", Fault::DoneButRefused(409)).await;
}

/// It might have rung: whoever isn't known to have been dialled isn't dialled twice.
#[tokio::test]
async fn a_client_whose_dial_got_lost_is_passed_over_after_the_ring_time() {
    let scene = Scene::set(2, 2).await;
    scene.switch.fail("dial", 0, 1, Fault::Lost);
    let caller = scene.switch.call(NUMBER);
    let first = scene.switch.created(1).await;
    let began = Instant::now();
    let second = scene.switch.dialled(1).await;
    assert!((seconds(2)..seconds(4)).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert!(second.ends_with("-b2"), "{second}");
    assert_eq!(scene.switch.asked("dial"), 2, "once for each client");
    assert!(!scene.switch.is_there(&first));
    is_answered_in_the_end(&scene, &caller, &second, &["no_answer"]).await;
}

/// 500 "Allocation failed": nobody can be dialled there.
#[tokio::test]
async fn a_leg_that_cannot_be_made_is_passed_over_at_once() {
    let scene = Scene::set(2, 20).await;
    scene.switch.fail("create channel", 0, 1, Fault::Refused(500));
    let started = Instant::now();
    let (caller, leg) = scene.ringing().await;
    assert!(started.elapsed() < seconds(1), "{:?}", started.elapsed());
    assert!(leg.ends_with("-b2"), "{leg}");
    is_answered_in_the_end(&scene, &caller, &leg, &["unreachable"]).await;
}

/// The leg was added, so the answer says, and died in that moment; nobody told.
#[tokio::test]
async fn a_leg_that_died_as_it_was_added_is_passed_over() {
    let scene = Scene::set(2, 20).await;
    scene.switch.fail("add to bridge", 1, 1, Fault::ChannelDies);
    let caller = scene.switch.call(NUMBER);
    let leg = scene.switch.dialled(1).await;
    assert!(leg.ends_with("-b2"), "{leg}");
    is_answered_in_the_end(&scene, &caller, &leg, &["unreachable"]).await;
}

#[tokio::test]
async fn a_caller_who_died_as_it_was_bridged_has_no_client_dialled_for_long() {
    let scene = Scene::set(1, 20).await;
    scene.switch.fail("add to bridge", 0, 1, Fault::ChannelDies);
    scene.switch.call(NUMBER);
    let leg = scene.switch.dialled(1).await;
    // Nothing tells of it but the audit, every 15 seconds.
    eventually("the client is let go", seconds(25), async || {
        (!scene.switch.is_there(&leg)).then_some(())
    })
    .await;
    let log = scene.over().await;
    assert_eq!(log["callStatus"], "CANCELED");
}

/// The caller hangs up while the client's channel is being made.
#[tokio::test]
async fn no_client_is_dialled_for_a_caller_who_left_while_the_leg_was_made() {
    let scene = Scene::set(2, 20).await;
    scene.switch.fail("create channel", 0, 1, Fault::AnsweredLate(ms(1_500)));
    scene.switch.set_flow(Flow::Held);
    let caller = scene.switch.call(NUMBER);
    scene.switch.release(false);
    scene.switch.set_flow(Flow::Held);
    let leg = scene.switch.created(1).await;
    scene.switch.hang_up(&caller, NORMAL, Some(487));
    // The newest first: the caller's end overtakes the leg's entry.
    scene.switch.release(true);
    scene.switch.gone(&leg).await;
    let log = scene.over().await;
    assert_eq!(outcome(&log), ("CANCELED", "caller_abandoned"));
    assert_eq!(scene.switch.dialled_so_far(), 0);
    assert_eq!(scene.switch.created(1).await, leg);
}

/// Hanging up with a lost answer is asked for again until the leg is known to be gone.
#[tokio::test]
async fn a_leg_whose_hang_up_got_lost_is_hung_up_again_before_the_next_is_dialled() {
    let scene = Scene::set(2, 1).await;
    scene.switch.fail("hang up", 0, 1, Fault::Lost);
    let (caller, first) = scene.ringing().await;
    let second = scene.switch.dialled(2).await;
    assert!(!scene.switch.is_there(&first), "before the next is dialled");
    is_answered_in_the_end(&scene, &caller, &second, &["no_answer"]).await;
}

#[tokio::test]
async fn a_client_who_is_gone_before_the_ring_time_is_over_has_not_answered() {
    let scene = Scene::set(1, 20).await;
    let (caller, leg) = scene.ringing().await;
    // Asterisk's own limit on dialling.
    scene.switch.hang_up(&leg, UNANSWERED, None);
    assert_eq!(scene.switch.gone(&caller).await, Some(UNANSWERED));
    let log = scene.over().await;
    assert_eq!(outcome(&log), ("NOANSWER", "all_no_answer"));
}

#[tokio::test]
async fn no_caller_is_answered_to_a_client_who_hung_up_as_it_was_put_back_into_the_bridge() {
    let scene = Scene::set(2, 1).await;
    scene.switch.fail("remove from bridge", 0, 1, Fault::AnsweredLate(ms(500)));
    // After the caller and the client.
    scene.switch.fail("add to bridge", 2, 1, Fault::ChannelDies);
    let (caller, leg) = scene.ringing().await;
    eventually("the client is out of the bridge", seconds(5), async || {
        scene.switch.bridged_with(&caller).is_empty().then_some(())
    })
    .await;
    scene.switch.answer(&leg);
    let second = scene.switch.dialled(2).await;
    assert!(!scene.switch.is_up(&caller), "it waits for somebody to talk to");
    is_answered_in_the_end(&scene, &caller, &second, &["rejected"]).await;
}

/// With `soft`, an event's cause is Asterisk's flag for who asked.
#[tokio::test]
async fn the_flag_of_a_soft_hang_up_is_no_cause() {
    let scene = Scene::set(1, 20).await;
    let (caller, _) = scene.talking().await;
    let call = scene.service.admin().get("/api/admin/live").await["items"][0]["callId"].clone();
    let path = format!("/api/admin/live/{}", call.as_str().expect("a call id"));
    scene.service.admin().delete(&path).await;
    assert_eq!(scene.switch.gone(&caller).await, Some(NORMAL));
    let log = scene.over().await;
    assert_eq!(log["hangupCauseCode"], NORMAL, "{log:#}");
}

/// Every command is refused for a while, as over a limit of connections.
#[tokio::test]
async fn calls_that_meet_a_switch_out_of_connections_end_whole_and_the_next_are_served() {
    let scene = Scene::set(1, 2).await;
    let callers: Vec<String> = (0..5).map(|_| scene.switch.call(NUMBER)).collect();
    scene.switch.set_door(Door::Closed);
    scene.switch.break_socket();
    scene.until_down().await;
    let before = scene.switch.refused_connections();
    eventually("commands and connections are refused", seconds(10), async || {
        (scene.switch.refused_connections() >= before + 3).then_some(())
    })
    .await;
    scene.switch.set_door(Door::Open);
    scene.until_up().await;
    for caller in &callers {
        scene.switch.gone(caller).await;
    }
    scene.service.assert_clean().await;
    scene.service.logs(5).await;
    let dialled = scene.switch.dialled_so_far();
    let caller = scene.switch.call(NUMBER);
    let leg = scene.switch.dialled(dialled + 1).await;
    scene.switch.answer(&leg);
    scene.until_state("talking").await;
    scene.switch.hang_up(&caller, NORMAL, None);
    scene.service.assert_clean().await;
    scene.service.logs(6).await;
}
