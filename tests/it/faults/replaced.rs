//! Another instance takes the application's name: this one steps down, and leads
//! what it has to its end.

use super::scene::{NORMAL, NUMBER, Scene, outcome, results};
use crate::support::service::instant;
use crate::support::wait::{eventually, holds_for, seconds};

/// Once for each leg.
const LOOK: &str = "look up channel";

async fn is_replaced(scene: &Scene) -> bool {
    scene.service.metrics().await.known("capconduit_ari_replaced") == 1.0
}

async fn step_down(scene: &Scene) {
    scene.switch.replace_application();
    eventually("an alarm is raised", seconds(5), async || is_replaced(scene).await.then_some(()))
        .await;
}

#[tokio::test]
async fn who_is_replaced_raises_an_alarm_and_takes_no_calls_any_more() {
    let scene = Scene::set(1, 20).await;
    assert!(!is_replaced(&scene).await);
    step_down(&scene).await;
    scene.until_down().await;
    assert!(scene.service.said().contains("another instance uses the ARI application's name"));
    scene.switch.call(NUMBER);
    // Longer than any pause between two attempts to connect.
    let fights_not = async || scene.switch.connections() == 1;
    holds_for("it doesn't fight for the name", seconds(3), fights_not).await;
    assert_eq!(scene.service.live_calls().await, 0);
    assert_eq!(scene.switch.asked("create bridge"), 0);
}

#[tokio::test]
async fn who_is_replaced_notices_the_end_of_its_calls_and_records_it() {
    let scene = Scene::set(1, 20).await;
    let (caller, leg) = scene.talking().await;
    step_down(&scene).await;
    let looks = scene.switch.asked(LOOK);
    eventually("it looks twice at its call", seconds(10), async || {
        (scene.switch.asked(LOOK) >= looks + 4).then_some(())
    })
    .await;
    assert!(scene.switch.is_up(&caller) && scene.switch.is_up(&leg), "the talk goes on");

    scene.switch.hang_up(&caller, NORMAL, None);

    assert_eq!(scene.switch.gone(&leg).await, Some(NORMAL), "nobody talks to nobody");
    let log = scene.over().await;
    assert_eq!(outcome(&log), ("ANSWERED", "interrupted"));
    assert!(log["billsecSeconds"].as_i64().unwrap() <= 6, "{log:#}");
    // When it was last seen to talk, which is no longer ago than two looks.
    let told = instant(&log["timestampEnd"]) - instant(&log["timestampAnswered"]);
    assert!(told.num_milliseconds() >= 900, "{told}");
}

#[tokio::test]
async fn who_is_replaced_notices_that_its_client_answers() {
    let scene = Scene::set(1, 20).await;
    let (caller, leg) = scene.ringing().await;
    step_down(&scene).await;
    scene.switch.answer(&leg);
    scene.until_state("talking").await;
    let log = scene.end_with(&caller).await;
    assert_eq!(results(&log), ["answered"]);
}

#[tokio::test]
async fn who_is_replaced_still_goes_on_to_the_next_client() {
    let scene = Scene::set(2, 3).await;
    let (caller, _) = scene.ringing().await;
    step_down(&scene).await;
    let second = scene.switch.dialled(2).await;
    scene.switch.answer(&second);
    scene.until_state("talking").await;
    let log = scene.end_with(&caller).await;
    assert_eq!(results(&log), ["no_answer", "answered"]);
}
