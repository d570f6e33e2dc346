//! Events that are doubled, late, out of order, lost, or from another clock.

use std::time::Instant;

use chrono::TimeDelta;

use super::scene::{NORMAL, NUMBER, Scene, outcome, results};
use crate::support::scripted::{Door, Fault, Flow};
use crate::support::service::instant;
use crate::support::wait::{eventually, seconds};

#[tokio::test]
async fn events_that_come_twice_count_once() {
    let scene = Scene::set(2, 1).await;
    scene.switch.set_flow(Flow::Doubled);
    let (caller, _) = scene.ringing().await;
    let second = scene.switch.dialled(2).await;
    scene.switch.answer(&second);
    scene.until_state("talking").await;
    let log = scene.end_with(&caller).await;
    assert_eq!(results(&log), ["no_answer", "answered"]);
    assert_eq!(scene.switch.dialled_so_far(), 2);
    assert_eq!(scene.campaign.links().await.iter().map(|link| link.total()).sum::<u64>(), 1);
}

#[tokio::test]
async fn events_in_reverse_order_end_as_they_should() {
    let scene = Scene::set(1, 20).await;
    let (caller, leg) = scene.ringing().await;
    scene.switch.set_flow(Flow::Held);
    scene.switch.answer(&leg);
    scene.switch.hang_up(&leg, NORMAL, None);
    // Hung up, answered, rung: the newest first.
    scene.switch.release(true);
    scene.switch.gone(&caller).await;
    let log = scene.over().await;
    assert_eq!(results(&log).len(), 1, "{log:#}");
}

#[tokio::test]
async fn an_answer_that_nobody_heard_of_is_found() {
    let scene = Scene::set(1, 2).await;
    let (caller, leg) = scene.ringing().await;
    scene.switch.set_flow(Flow::Lost);
    scene.switch.answer(&leg);
    // The end of the ring time finds it answered.
    scene.until_state("talking").await;
    assert!(scene.switch.bridged_with(&caller).contains(&leg), "and puts it back");
    scene.switch.set_flow(Flow::Passing);
    let log = scene.end_with(&caller).await;
    assert_eq!(outcome(&log), ("ANSWERED", "answered"));
}

/// No hang-up request and no end of the channel: it has left the application, no more.
#[tokio::test]
async fn a_caller_who_only_left_the_application_has_ended_the_call() {
    let scene = Scene::set(1, 20).await;
    let (talker, its_leg) = scene.talking().await;
    let (waiter, other_leg) = scene.ringing().await;
    for (caller, leg) in [(&talker, &its_leg), (&waiter, &other_leg)] {
        let left = Instant::now();
        scene.switch.leave(caller);
        scene.switch.gone(leg).await;
        assert!(left.elapsed() < seconds(1), "{:?}", left.elapsed());
    }
    scene.service.assert_clean().await;
    let logs = scene.service.logs(2).await;
    let ends: Vec<_> = logs.iter().map(|log| log["callStatus"].as_str().unwrap()).collect();
    assert_eq!(ends, ["ANSWERED", "CANCELED"]);
}

#[tokio::test]
async fn an_end_that_nobody_heard_of_is_found_by_the_audit() {
    let scene = Scene::set(1, 20).await;
    let (caller, leg) = scene.talking().await;
    scene.switch.vanish(&caller);
    // Channels and bridges are listed every 15 seconds.
    eventually("the client is let go", seconds(20), async || {
        (!scene.switch.is_there(&leg)).then_some(())
    })
    .await;
    let log = scene.over().await;
    assert_eq!(log["callStatus"], "ANSWERED");
    let metrics = scene.service.metrics().await;
    let drift = metrics.known("capconduit_drift_total{kind=\"call_without_channel\"}");
    assert_eq!(drift, 1.0, "what was mended is counted");
    assert!(scene.service.said().contains("no event had told so"));
}

#[tokio::test]
async fn a_caller_whose_arrival_nobody_heard_of_is_served_by_the_audit() {
    let scene = Scene::set(1, 20).await;
    scene.switch.set_flow(Flow::Lost);
    let caller = scene.switch.call(NUMBER);
    scene.switch.set_flow(Flow::Passing);
    eventually("it is dialled for", seconds(20), async || {
        (scene.switch.dialled_so_far() == 1).then_some(())
    })
    .await;
    let log = scene.end_with(&caller).await;
    assert_eq!(log["callStatus"], "CANCELED");
    eventually("the next audit counts it", seconds(20), async || {
        let metrics = scene.service.metrics().await;
        let drift = metrics.known("capconduit_drift_total{kind=\"caller_without_call\"}");
        (drift == 1.0).then_some(())
    })
    .await;
}

/// What is billed is measured by one clock: the switch's.
#[tokio::test]
async fn a_clock_that_differs_by_five_seconds_changes_no_duration() {
    for ahead in [5, -5] {
        let scene = Scene::set(1, 20).await;
        scene.switch.set_clock_ahead(TimeDelta::seconds(ahead));
        let (caller, leg) = scene.ringing().await;
        let answered = Instant::now();
        scene.switch.answer(&leg);
        scene.until_state("talking").await;
        tokio::time::sleep(seconds(2)).await;
        let log = scene.end_with(&caller).await;
        let talked = answered.elapsed();
        let billed = log["billsecSeconds"].as_u64().unwrap();
        assert!((2..=talked.as_secs()).contains(&billed), "{ahead}: {billed} s of {talked:?}");
        let rang = instant(&log["timestampAnswered"]) - instant(&log["timestampStart"]);
        assert!((0..2_000).contains(&rang.num_milliseconds()), "{ahead}: {rang}");
    }
}

/// The connection is down while the call changes: what was missed is looked up.
#[tokio::test]
async fn calls_go_on_where_they_are_when_the_connection_comes_back() {
    for down in [seconds(1), seconds(4)] {
        let scene = Scene::set(1, 20).await;
        let (talker, _) = scene.talking().await;
        let (answered, its_leg) = scene.ringing().await;
        let (left, left_leg) = scene.ringing().await;

        scene.switch.set_door(Door::Closed);
        scene.switch.break_socket();
        scene.switch.answer(&its_leg);
        scene.switch.vanish(&left);
        tokio::time::sleep(down).await;
        scene.switch.set_door(Door::Open);
        scene.until_up().await;

        scene.switch.gone(&left_leg).await;
        eventually("two calls talk", seconds(10), async || {
            let live = scene.service.admin().get("/api/admin/live").await;
            let live = crate::support::service::items(&live);
            (live.len() == 2 && live.iter().all(|call| call["state"] == "talking")).then_some(())
        })
        .await;
        assert!(scene.switch.is_up(&talker));
        scene.switch.hang_up(&talker, NORMAL, None);
        scene.switch.hang_up(&answered, NORMAL, None);
        scene.service.assert_clean().await;
        let logs = scene.service.logs(3).await;
        let answered = logs.iter().filter(|log| log["callStatus"] == "ANSWERED").count();
        assert_eq!(answered, 2, "{logs:#?}");
    }
}

/// Its end is told before anybody has found that it began.
#[tokio::test]
async fn a_talk_that_began_while_nothing_was_heard_is_sold_though_its_end_is_heard_first() {
    let scene = Scene::set(2, 20).await;
    let (caller, leg) = scene.ringing().await;
    scene.switch.set_door(Door::Closed);
    scene.switch.break_socket();
    scene.until_down().await;
    scene.switch.answer(&leg);
    let asked = scene.switch.asked("look up channel");
    scene.switch.fail("look up channel", 0, 1, Fault::AnsweredLate(seconds(1)));
    scene.switch.set_door(Door::Open);
    eventually("the caller is looked at", seconds(15), async || {
        (scene.switch.asked("look up channel") > asked).then_some(())
    })
    .await;
    scene.switch.hang_up(&leg, NORMAL, None);
    scene.switch.gone(&caller).await;
    let log = scene.over().await;
    assert_eq!((log["callStatus"].as_str(), results(&log)), (Some("ANSWERED"), vec!["answered"]));
    assert_eq!(scene.switch.dialled_so_far(), 1, "nobody else is dialled for it");
}
