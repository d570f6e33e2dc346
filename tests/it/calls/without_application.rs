//! A dialplan that routes without the Stasis application, as the example has it.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::callers::call;
use crate::support::clients::{Manner, Phones};
use crate::support::service::Service;
use crate::support::wait::seconds;

const NUMBER: &str = "+15550101101";
const TOKEN: &str = "the-token-of-the-dialplan";

/// A service whose Asterisk has the example's files appended to its own.
async fn with_example() -> Service {
    let mut service = Service::prepare();
    let own = service.asterisk_conf.clone();
    let conf = service.file("asterisk-conf");
    fs::create_dir_all(&conf).unwrap();
    fs::create_dir_all(service.data()).unwrap();
    fs::write(service.data().join("internal-token"), TOKEN).unwrap();
    for entry in fs::read_dir(&own).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if path.extension().is_none_or(|extension| extension != "conf") {
            continue;
        }
        let mut text = fs::read_to_string(&path).unwrap();
        let example = own.join("examples/without-application").join(name);
        if Path::exists(&example) {
            text.push_str(&fs::read_to_string(example).unwrap());
        }
        let address = format!("127.0.0.1:{}", service.http_port);
        let text = text.replace("@HTTP_ADDRESS@", &address).replace("@INTERNAL_TOKEN@", TOKEN);
        fs::write(conf.join(name), text).unwrap();
    }
    service.asterisk_conf = conf;
    service.start_first().await;
    service
}

#[tokio::test]
async fn the_example_asks_dials_in_order_and_reports() {
    let service = with_example().await;
    let busy = Phones::refusing(&service, 486).await;
    let answering = Phones::start(&service, Manner::answers_after(100)).await;
    let seller = service.seller().await;
    let campaign = seller.campaign(&service, NUMBER, "priority", 5).await;
    for (priority, contact) in [busy.contact(), answering.contact()].iter().enumerate() {
        let client = service.client(contact).await;
        campaign.link(client, json!({"forwardingPriority": priority})).await;
    }

    let caller = call(NUMBER, 2_200).start(&service).finish(seconds(20)).await;

    assert_eq!(caller.answered_with(200), 1);
    let log = service.only_log().await;
    assert_eq!((&log["callStatus"], &log["reason"]), (&json!("ANSWERED"), &json!("answered")));
    assert_eq!(log["campaign"]["id"], campaign.id);
    assert_eq!((&log["did"]["number"], &log["callerIdNum"]), (&json!(NUMBER), &json!("+155591")));
    assert!((1..=3).contains(&log["billsecSeconds"].as_i64().unwrap()), "{log:#}");
    let links = campaign.links().await;
    assert_eq!(log["client"]["id"], links[1].0["clientId"]);
    assert_eq!((links[0].total(), links[1].total()), (0, 1));
    service.assert_clean().await;
}

#[tokio::test]
async fn the_example_refuses_whom_nobody_can_have_and_reports_that_too() {
    let service = with_example().await;
    let busy = Phones::refusing(&service, 486).await;
    let seller = service.seller().await;
    let campaign = seller.campaign(&service, NUMBER, "priority", 5).await;
    campaign.link(service.client(&busy.contact()).await, json!({})).await;

    let caller = call("+15550101199", 100).start(&service).finish(seconds(20)).await;
    assert_eq!(caller.answered_with(404), 1);
    let caller = call(NUMBER, 100).start(&service).finish(seconds(20)).await;
    assert_eq!(caller.answered_with(486), 1);

    let logs = service.logs(2).await;
    let mut statuses: Vec<_> = logs.iter().map(|log| log["callStatus"].as_str().unwrap()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, ["BUSY", "REJECTED_DID"]);
    assert_eq!(campaign.links().await[0].total(), 0);
    service.assert_clean().await;
}
