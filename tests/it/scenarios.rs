//! `docs/SCENARIOS.md` maps each scenario to tests that are there.

use std::fs;
use std::path::Path;

const TABLE: &str = include_str!("../../docs/SCENARIOS.md");
const SCENARIOS: usize = 52;

/// The cells of each scenario's row.
fn rows() -> Vec<Vec<&'static str>> {
    let cells = TABLE.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    let rows = cells.map(|row| row.split(" | ").map(str::trim).collect::<Vec<_>>());
    rows.filter(|row| row[0].parse::<usize>().is_ok()).collect()
}

#[test]
fn every_scenario_is_there_once_and_in_order() {
    let numbers: Vec<usize> = rows().iter().map(|row| row[0].parse().unwrap()).collect();
    assert_eq!(numbers, (1..=SCENARIOS).collect::<Vec<_>>());
}

#[test]
fn every_scenario_has_a_test_that_exists_or_says_why_it_cannot_apply() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for row in rows() {
        let [number, _, _, tests, place] = row[..] else { panic!("five cells: {row:?}") };
        let tests: Vec<&str> = tests.split('`').filter(|test| test.contains("::")).collect();
        let applies = !place.starts_with("can't apply: ");
        assert_eq!(applies, !tests.is_empty(), "{number} has tests, or a reason why not");
        for test in tests {
            let (file, name) = test.split_once("::").unwrap();
            let source = fs::read_to_string(root.join(file));
            let source = source.unwrap_or_else(|error| panic!("{number}: {file}: {error}"));
            let called = format!("fn {name}(");
            assert!(source.contains(&called), "{number}: {file} has no {name}");
        }
    }
}
