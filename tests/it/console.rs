//! The console in a real browser, beside real calls.

use serde_json::json;

use crate::support::browser::Browser;
use crate::support::clients::{Manner, Phones};
use crate::support::phone::{Invite, Phone};
use crate::support::ports::Ports;
use crate::support::proxy::{Flow, Proxy};
use crate::support::seller::{PASSWORD, Seller};
use crate::support::service::Service;

const NUMBER: &str = "+15550101301";

/// A seller with one campaign of one client, whose phones ring for a while.
struct Scene {
    service: Service,
    phones: Phones,
    seller: Seller,
}

impl Scene {
    async fn set(manner: Manner, settings: serde_json::Value) -> Self {
        let service = Service::start().await;
        let phones = Phones::start(&service, manner).await;
        let seller = service.seller().await;
        let campaign = seller.campaign(&service, NUMBER, "priority", 20).await;
        campaign.link(service.client(&phones.contact()).await, settings).await;
        Self { service, phones, seller }
    }

    async fn admin(&self) -> Browser {
        let mut browser = Browser::start(&self.service).await;
        let password = self.service.secret("admin-password");
        browser.sign_in("admin", &password).await;
        browser.see(".connection.open").await;
        browser
    }
}

/// The row of a live call in this state, in the page.
fn live(state: &str) -> String {
    format!(".live-panel tbody tr:has(.state.{state})")
}

#[tokio::test]
async fn an_admin_and_the_seller_see_a_call_come_ring_talk_and_end() {
    let scene = Scene::set(Manner::answers_after(1_500), json!({"maxConcurrency": 5})).await;
    let other = scene.service.seller().await;
    let other = other.web.get("/api/auth/status").await["user"]["username"].clone();
    let mut admin = Browser::start(&scene.service).await;
    admin.open("/console").await;
    admin.see("role=button[name='Sign in']").await;
    admin.assert_accessible().await;
    admin.sign_in("admin", "wrong").await;
    admin.see("role=alert >> text=password is wrong").await;
    admin.sign_in("admin", &scene.service.secret("admin-password")).await;
    let mut seller = Browser::start(&scene.service).await;
    let name = scene.seller.web.get("/api/auth/status").await["user"]["username"].clone();
    seller.sign_in(name.as_str().unwrap(), PASSWORD).await;
    let mut foreign = Browser::start(&scene.service).await;
    foreign.sign_in(other.as_str().unwrap(), PASSWORD).await;
    for browser in [&mut admin, &mut seller, &mut foreign] {
        browser.see(".connection.open").await;
        browser.see("text=No call is up.").await;
    }

    let invite = Invite::to(&scene.service, NUMBER);
    let number = invite.number().to_owned();
    let mut caller = Phone::invite(&scene.service, invite).await;
    for browser in [&mut admin, &mut seller] {
        browser.see(&live("ringing")).await;
        let row = browser.text(&live("ringing")).await;
        for part in ["Ringing", &number, NUMBER, "for +15550101301", "The client"] {
            assert!(row.contains(part), "{part} in {row}");
        }
    }
    assert!(admin.text(&live("ringing")).await.contains(name.as_str().unwrap()), "whose it is");
    assert_eq!(caller.answer().await, 200);
    for browser in [&mut admin, &mut seller] {
        browser.see(&live("talking")).await;
        browser.see("role=meter[name*='at once']").await;
        browser.see(".cap .numbers >> text='1 / 5'").await;
        browser.assert_accessible().await;
    }
    assert_eq!(seller.count("role=button[name=/Hang up/]").await, 0, "sellers can't");
    admin.picture("talking").await;
    caller.hang_up().await;
    for browser in [&mut admin, &mut seller] {
        browser.miss(".live-panel tbody tr").await;
        browser.see(".log-panel tbody tr >> text=Answered").await;
        browser.see(".shares >> text=Answered").await;
        browser.see(".traffic-panel canvas").await;
    }
    foreign.see("text=No call is up.").await;
    assert_eq!(foreign.count("tbody tr").await, 0, "somebody else's calls are never seen");
    for browser in [&mut admin, &mut seller, &mut foreign] {
        browser.assert_no_complaints().await;
    }
    scene.service.assert_clean().await;
}

#[tokio::test]
async fn a_cap_fills_and_refuses_and_the_refusal_explains_itself() {
    let settings = json!({"maxConcurrency": 1, "dailyCap": 50});
    let scene = Scene::set(Manner::answers_after(50), settings).await;
    let mut admin = scene.admin().await;
    admin.see(".cap .numbers >> text='0 / 1'").await;
    let mut first = Phone::call(&scene.service, NUMBER).await;
    assert_eq!(first.answer().await, 200);
    admin.see(".cap.full .numbers >> text='full 1 / 1'").await;
    admin.see("role=meter[name=/at once/][name*='link']").await;
    let mut second = Phone::call(&scene.service, NUMBER).await;
    assert_eq!(second.answer().await, 503);
    admin.click(".log-panel tr:has-text('Cap: concurrency') button").await;
    admin.see("dialog .step.passed >> text=Concurrency cap of the link").await;
    admin.see("dialog .cap.full .numbers >> text='full 1 / 1'").await;
    admin.see("dialog >> text=No eligible clients available").await;
    admin.assert_accessible().await;
    admin.picture("refused").await;
    admin.press("Escape").await;
    admin.miss("dialog[open]").await;
    assert!(admin.focused().await.contains("how the call from"), "back where it was");
    first.hang_up().await;
    admin.see(".cap .numbers >> text='0 / 1'").await;
    admin.see(".cap .numbers >> text='1 / 50'").await;
    admin.assert_no_complaints().await;
    scene.service.assert_clean().await;
}

#[tokio::test]
async fn staff_hang_a_call_up_after_it_was_said_twice_and_never_see_who_called() {
    let scene = Scene::set(Manner::answers_after(50), json!({})).await;
    let account = json!({
        "username": "operator", "email": "operator@example.com", "password": PASSWORD,
        "role": "staff",
    });
    scene.service.admin().post("/api/admin/users", account).await;
    let mut staff = Browser::start(&scene.service).await;
    staff.sign_in("operator", PASSWORD).await;
    staff.see(".connection.open").await;
    let invite = Invite::to(&scene.service, NUMBER);
    let number = invite.number().to_owned();
    let mut caller = Phone::invite(&scene.service, invite).await;
    assert_eq!(caller.answer().await, 200);
    staff.see(&live("talking")).await;
    let row = staff.text(&live("talking")).await;
    let masked = format!("{}****", &number[..number.len() - 4]);
    assert!(row.contains(&masked) && !row.contains(&number), "{row}");
    staff.click(".live-panel tbody >> role=button[name=/Hang up the call from/]").await;
    staff.see("role=dialog[name='Hang up this call?']").await;
    assert_eq!(staff.focused().await, "Keep the call", "one key press does no harm");
    staff.assert_accessible().await;
    staff.picture("hang-up").await;
    staff.press("Enter").await;
    staff.miss("dialog[open]").await;
    let bye = |message: &crate::support::sip::Message| message.is_request("BYE");
    assert_eq!(scene.phones.trace().count(bye), 0);

    staff.click(".live-panel tbody >> role=button[name=/Hang up the call from/]").await;
    staff.fill("dialog input[name=reason]", "test of the line").await;
    staff.click("dialog >> role=button[name='Hang up']").await;
    caller.wait_for("the caller's BYE", bye).await;
    staff.miss(".live-panel tbody tr").await;
    scene.service.assert_clean().await;
    assert_eq!(scene.phones.trace().count(bye), 1, "the client hears it too");
    let log = scene.service.only_log().await;
    assert_eq!(log["hangupCauseText"], "Hung up by staff: test of the line");
    assert_eq!(log["callStatus"], "ANSWERED");
    let audit = scene.service.admin().get("/api/admin/audit").await;
    let entry = &audit["items"][0];
    assert_eq!((&entry["resource"], &entry["resourceId"]), (&json!("call"), &log["callId"]));
    assert_eq!(entry["after"], json!({"reason": "test of the line"}));
    assert_eq!(entry["user"]["username"], "operator");
    staff.click(".log-panel tbody button").await;
    staff.see("dialog >> text=Hung up by staff: test of the line").await;
    staff.assert_no_complaints().await;
}

#[tokio::test]
async fn a_lost_connection_is_shown_and_what_was_missed_is_caught_up() {
    let mut scene = Scene::set(Manner::answers_after(50), json!({})).await;
    let mut admin = scene.admin().await;
    let mut stays = Phone::call(&scene.service, NUMBER).await;
    let mut leaves = Phone::call(&scene.service, NUMBER).await;
    assert_eq!((stays.answer().await, leaves.answer().await), (200, 200));
    admin.see(&format!("{} >> nth=1", live("talking"))).await;
    scene.service.kill();
    admin.see(".connection.lost >> text=Disconnected").await;
    admin.see(".banner >> text=Calls go on").await;
    assert_eq!(admin.count(".live-panel tbody tr").await, 2, "as they were");
    admin.assert_accessible().await;
    admin.picture("disconnected").await;
    leaves.hang_up().await;
    scene.service.start_again().await;
    admin.see(".connection.open").await;
    admin.miss(".live-panel tbody tr >> nth=1").await;
    admin.see(&live("talking")).await;
    admin.miss(".banner").await;
    stays.hang_up().await;
    admin.see("text=No call is up.").await;
    admin.see(".log-panel tbody tr >> nth=1").await;
    admin.assert_no_complaints().await;
    scene.service.assert_clean().await;
}

#[tokio::test]
async fn a_page_whose_network_broke_goes_on_where_it_stopped() {
    let scene = Scene::set(Manner::answers_after(50), json!({})).await;
    let ports = Ports::claim();
    let network = Proxy::start(ports.single(), scene.service.http_port);
    let mut admin = Browser::start_at(&scene.service, network.port).await;
    admin.sign_in("admin", &scene.service.secret("admin-password")).await;
    let mut leaves = Phone::call(&scene.service, NUMBER).await;
    assert_eq!(leaves.answer().await, 200);
    admin.see(&live("talking")).await;
    network.set(Flow::Cut);
    admin.see(".connection.lost >> text=Disconnected").await;
    leaves.hang_up().await;
    scene.service.logs(1).await;
    let mut first = Phone::call(&scene.service, NUMBER).await;
    let mut second = Phone::call(&scene.service, NUMBER).await;
    assert_eq!((first.answer().await, second.answer().await), (200, 200));
    network.set(Flow::Open);
    admin.see(".connection.open").await;
    admin.see(&format!("{} >> nth=1", live("talking"))).await;
    assert_eq!(admin.count(".live-panel tbody tr").await, 2, "the first one is gone");
    for caller in [&mut first, &mut second] {
        caller.hang_up().await;
    }
    admin.see("text=No call is up.").await;
    admin.assert_no_complaints().await;
    scene.service.assert_clean().await;
}

#[tokio::test]
async fn the_page_is_for_small_screens_keyboards_and_the_dark_and_ends_with_its_session() {
    let scene = Scene::set(Manner::answers_after(50), json!({"maxConcurrency": 1})).await;
    let mut admin = scene.admin().await;
    let mut caller = Phone::call(&scene.service, NUMBER).await;
    assert_eq!(caller.answer().await, 200);
    assert_eq!(Phone::call(&scene.service, NUMBER).await.answer().await, 503);
    assert_eq!(Phone::call(&scene.service, NUMBER).await.answer().await, 503);
    admin.see(&live("talking")).await;
    admin.see(".log-panel tbody tr >> nth=1").await;
    for (scheme, width, height) in
        [("dark", 1440, 900), ("light", 1440, 900), ("dark", 390, 844), ("light", 390, 844)]
    {
        admin.scheme(scheme).await;
        admin.size(width, height).await;
        admin.picture(&format!("{scheme}-{width}")).await;
        admin.assert_accessible().await;
        assert!(admin.overflow().await <= 0, "nothing is beyond the edge at {width}");
    }
    admin.click(".log-panel tbody tr >> nth=0 >> role=button").await;
    admin.see("dialog .steps").await;
    admin.picture("trace-390").await;
    assert!(admin.overflow().await <= 0);
    admin.press("Escape").await;
    admin.miss("dialog[open]").await;
    let before = admin.focused().await;
    admin.press("ArrowDown").await;
    assert_ne!(admin.focused().await, before, "the next row");
    admin.press("Enter").await;
    admin.see("dialog .steps").await;
    admin.press("Escape").await;

    // The admin's password is set anew: every session of theirs ends.
    let me = scene.service.admin().get("/api/auth/status").await["user"]["id"].clone();
    let path = format!("/api/admin/users/{me}/password");
    scene.service.admin().put(&path, json!({"password": "another long password"})).await;
    admin.see("role=alert >> text=Your session has ended").await;
    admin.sign_in("admin", "another long password").await;
    admin.see(&live("talking")).await;
    admin.click("role=button[name='Sign out']").await;
    admin.see("role=button[name='Sign in']").await;
    caller.hang_up().await;
    admin.assert_no_complaints().await;
}
