//! Asterisk hangs: connections stand, and nothing is answered.

use super::scene::{NORMAL, NUMBER, Scene, outcome};
use crate::support::scripted::{Door, Fault};
use crate::support::wait::{eventually, seconds};

/// What takes a call down is asked for again and again, each time in vain.
#[tokio::test]
async fn a_call_that_cannot_be_ended_for_a_while_ends_whole() {
    let scene = Scene::set(1, 20).await;
    let (caller, leg) = scene.talking().await;
    scene.switch.fail("hang up", 0, 2, Fault::Lost);
    scene.switch.fail("look up channel", 0, 2, Fault::Unanswered);
    scene.switch.fail("destroy bridge", 0, 1, Fault::Unanswered);
    scene.switch.hang_up(&caller, NORMAL, None);
    let log = scene.over().await;
    assert_eq!(outcome(&log), ("ANSWERED", "answered"));
    assert!(!scene.switch.is_there(&leg));
}

#[tokio::test]
async fn calls_of_a_switch_that_hangs_end_whole_when_it_goes_on() {
    let scene = Scene::set(1, 20).await;
    let (talker, _) = scene.talking().await;
    let (ringer, _) = scene.ringing().await;
    scene.switch.set_door(Door::Silent);
    scene.until_down().await;
    let arrived = scene.switch.call(NUMBER);
    tokio::time::sleep(seconds(8)).await;
    scene.switch.set_door(Door::Open);
    scene.until_up().await;

    // The one who came meanwhile is found and served.
    eventually("it is dialled for", seconds(20), async || {
        (scene.switch.dialled_so_far() >= 3).then_some(())
    })
    .await;
    assert!(scene.switch.is_up(&talker), "and the talk went on");
    for caller in [&talker, &ringer, &arrived] {
        scene.switch.hang_up(caller, NORMAL, None);
    }
    scene.service.assert_clean().await;
    let logs = scene.service.logs(3).await;
    let with = |status: &str| logs.iter().filter(|log| log["callStatus"] == status).count();
    assert_eq!((with("ANSWERED"), with("CANCELED")), (1, 2), "{logs:#?}");
}

/// It hangs for longer than calls wait, and crashes: what is known is recorded.
#[tokio::test]
async fn calls_of_a_switch_that_hangs_and_dies_are_closed_once_it_is_back() {
    let scene = Scene::set(1, 20).await;
    scene.talking().await;
    scene.ringing().await;
    scene.switch.set_door(Door::Silent);
    scene.until_down().await;
    scene.switch.reboot();
    scene.switch.set_door(Door::Answers(503));
    let before = scene.switch.refused_connections();
    eventually("it asks again and again", seconds(10), async || {
        (scene.switch.refused_connections() >= before + 2).then_some(())
    })
    .await;
    assert_eq!(scene.service.live_calls().await, 2, "503 says nothing of calls");
    scene.switch.set_door(Door::Open);
    scene.service.assert_clean().await;
    let logs = scene.service.logs(2).await;
    assert!(logs.iter().all(|log| log["reason"] == "interrupted"), "{logs:#?}");
}
