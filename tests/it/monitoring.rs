//! The files for Prometheus and Grafana (`monitoring/`) and what the service serves.

use std::collections::{BTreeMap, BTreeSet};

use capconduit::telemetry::Moment;
use serde::Deserialize;
use serde_json::Value;

use crate::faults::scene::{NORMAL, NUMBER, Scene};
use crate::support::metrics::Metrics;
use crate::support::promql::Query;

const PAGE: &str = include_str!("../../docs/OPERATIONS.md");
const RULES: &str = include_str!("../../monitoring/alerts.yaml");
const DASHBOARD: &str = include_str!("../../monitoring/grafana-dashboard.json");

/// Labels that Prometheus puts to what it reads.
const OF_PROMETHEUS: [&str; 2] = ["job", "instance"];
const GRID_WIDTH: u64 = 24;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[serde(rename = "name")]
    _name: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    r#for: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

fn rules() -> Vec<Rule> {
    let file: RuleFile = serde_yaml::from_str(RULES).unwrap();
    file.groups.into_iter().flat_map(|group| group.rules).collect()
}

fn dashboard() -> Value {
    serde_json::from_str(DASHBOARD).unwrap()
}

/// All panels but the headings of rows.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    panels.filter(|panel| panel["type"] != "row").collect()
}

/// The words in `{{...}}` and in `$labels....`.
fn named_labels(text: &str) -> Vec<&str> {
    let inside = text.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap().trim());
    let words = inside.filter(|word| !word.starts_with("$value"));
    words.map(|word| word.trim_start_matches("$labels.")).collect()
}

// --- what is served ---

/// What a service serves to which everything has happened that an alert or a panel tells of.
struct Served {
    /// Metrics as queries name them, with the labels of each of their series.
    series: BTreeMap<String, Vec<BTreeMap<String, String>>>,
    families: Vec<String>,
}

impl Served {
    async fn read() -> Self {
        let scene = Scene::set(1, 20).await;
        let link = scene.campaign.links().await[0].0["id"].as_i64().unwrap();
        scene.campaign.change_link(link, serde_json::json!({"maxConcurrency": 1})).await;
        let (caller, _leg) = scene.talking().await;
        let refused = scene.switch.call(NUMBER);
        scene.switch.gone(&refused).await;
        scene.switch.hang_up(&caller, NORMAL, None);
        scene.service.logs(2).await;
        scene.service.assert_clean().await;
        Self::of(&scene.service.metrics().await)
    }

    fn of(metrics: &Metrics) -> Self {
        let mut series = BTreeMap::<String, Vec<_>>::new();
        for key in metrics.keys() {
            let (name, labels) = key.split_once('{').unwrap_or((key, ""));
            let labels = labels.trim_end_matches('}').split(',').filter_map(|label| {
                let (label, value) = label.split_once('=')?;
                Some((label.to_owned(), value.trim_matches('"').to_owned()))
            });
            series.entry(name.to_owned()).or_default().push(labels.collect());
        }
        Self { series, families: metrics.families.clone() }
    }

    /// What this query asks for in vain; `shown` are labels that are told of its result.
    fn missing(&self, query: &str, shown: &[&str]) -> Vec<String> {
        let asked = Query::parse(query);
        let mut missing = Vec::new();
        let mut labels = BTreeSet::from(OF_PROMETHEUS);
        for selector in &asked.selectors {
            let name = &selector.metric;
            let Some(series) = self.series.get(name) else {
                if name != "up" {
                    missing.push(format!("no metric {name}"));
                }
                continue;
            };
            labels.extend(series.iter().flat_map(|series| series.keys().map(String::as_str)));
            for matcher in &selector.matchers {
                let label = &matcher.label;
                let fits =
                    |of: &BTreeMap<_, String>| of.get(label).is_some_and(|v| matcher.fits(v));
                if !OF_PROMETHEUS.contains(&label.as_str()) && !series.iter().any(fits) {
                    missing.push(format!("no {name} with {matcher:?}"));
                }
            }
        }
        let named = asked.grouped_by.iter().map(String::as_str).chain(shown.iter().copied());
        let unknown = named.filter(|label| !labels.contains(label));
        missing.extend(unknown.map(|label| format!("no label {label}")));
        missing
    }
}

#[tokio::test]
async fn every_metric_and_label_of_the_alerts_and_of_the_dashboard_is_served() {
    let served = Served::read().await;
    let mut missing = Vec::new();
    for rule in rules() {
        let told: Vec<&str> =
            rule.annotations.values().flat_map(|text| named_labels(text)).collect();
        for what in served.missing(&rule.expr, &told) {
            missing.push(format!("{}: {what}", rule.alert));
        }
    }
    let dashboard = dashboard();
    let mut shown = BTreeSet::new();
    for panel in panels(&dashboard) {
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let legend = named_labels(target["legendFormat"].as_str().unwrap());
            for what in served.missing(query, &legend) {
                missing.push(format!("panel {}: {what}", panel["title"]));
            }
            shown.extend(Query::parse(query).selectors.into_iter().map(|asked| asked.metric));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let Some(definition) = variable["definition"].as_str() else { continue };
        let query = definition.strip_prefix("label_values(").unwrap().rsplit_once(", ").unwrap().0;
        for what in served.missing(query, &[]) {
            missing.push(format!("variable {}: {what}", variable["name"]));
        }
        shown.extend(Query::parse(query).selectors.into_iter().map(|asked| asked.metric));
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        let query = annotation["expr"].as_str().unwrap();
        let title = named_labels(annotation["titleFormat"].as_str().unwrap());
        for what in served.missing(query, &title) {
            missing.push(format!("annotation {}: {what}", annotation["name"]));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");

    let suffixes = ["", "_total", "_bucket", "_info"];
    let is_shown =
        |family: &str| suffixes.iter().any(|end| shown.contains(&format!("{family}{end}")));
    let ours = served.families.iter().filter(|family| family.starts_with("capconduit_"));
    let unseen: Vec<_> = ours.filter(|family| !is_shown(family)).collect();
    assert!(unseen.is_empty(), "the dashboard doesn't show {unseen:?}");
}

#[test]
fn every_kind_of_drift_is_alerted_of() {
    let text = capconduit::telemetry::Metrics::default().text(&Moment::default());
    let served = Served::of(&Metrics::parse(&text));
    let drift = "capconduit_drift_total";
    let asked: Vec<_> = rules()
        .iter()
        .flat_map(|rule| Query::parse(&rule.expr).selectors)
        .filter(|selector| selector.metric == drift)
        .collect();
    for kind in &served.series[drift] {
        let is_asked_for = asked.iter().any(|selector| {
            selector.matchers.iter().all(|matcher| matcher.fits(&kind[&matcher.label]))
        });
        assert!(is_asked_for, "nobody hears of {kind:?}");
    }
}

// --- the files themselves ---

/// Alerts of the table: name, query, and for how long it must be so.
fn alerts_of_the_page() -> Vec<[String; 3]> {
    let table = PAGE.split("| alert | when |").nth(1).unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let plain = |cell: &str| cell.trim().trim_matches('`').replace('\u{1}', "|");
    rows.map(|row| {
        let row = row.replace("\\|", "\u{1}");
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let [alert, when, long, _] = cells[..] else { panic!("four cells: {row}") };
        [alert, when, long].map(plain)
    })
    .collect()
}

#[test]
fn the_alerts_are_those_of_the_page_for_operators() {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let of_file: Vec<_> =
        rules().into_iter().map(|rule| [rule.alert, words(&rule.expr), rule.r#for]).collect();
    assert_eq!(of_file, alerts_of_the_page());
    let names: BTreeSet<_> = of_file.iter().map(|[name, ..]| name).collect();
    assert_eq!(names.len(), of_file.len(), "each name once");
}

#[test]
fn every_alert_says_how_bad_it_is_and_what_to_do() {
    for Rule { alert, labels, annotations, .. } in rules() {
        let severity = labels.get("severity").map(String::as_str);
        assert!(matches!(severity, Some("critical" | "warning")), "{alert}: {severity:?}");
        let named: Vec<_> = annotations.keys().map(String::as_str).collect();
        assert_eq!(named, ["description", "summary"], "{alert}");
        assert!(annotations["summary"].contains("$labels.instance"), "{alert}: where");
        assert!(annotations["description"].ends_with('.'), "{alert}: a sentence");
    }
}

#[test]
fn the_dashboard_is_whole() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert_eq!(
        (&variables[0]["name"], &variables[0]["type"]),
        (&"datasource".into(), &"datasource".into())
    );
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is another's");
        let place = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(place("x") + place("w") <= GRID_WIDTH, "{title} is beyond the edge");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(cells.insert((x, y)), "{title} lies on another");
            }
        }
    }
    for panel in panels(&dashboard) {
        let title = &panel["title"];
        assert!(panel["description"].as_str().unwrap().ends_with('.'), "{title}: a sentence");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}");
        for asker in targets.iter().chain([panel]) {
            assert_eq!(asker["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
}
