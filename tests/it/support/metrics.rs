//! The text format of OpenMetrics, read strictly.

use std::collections::BTreeMap;

/// What was read.
pub struct Metrics {
    /// Every sample by its name and labels, as they are written.
    samples: BTreeMap<String, f64>,
    /// The names of all families, those without a sample among them.
    pub families: Vec<String>,
}

/// What the suffixes of a family's samples may be.
fn suffixes(kind: &str) -> &'static [&'static str] {
    match kind {
        "counter" => &["_total"],
        "gauge" => &[""],
        "info" => &["_info"],
        "histogram" => &["_bucket", "_sum", "_count"],
        _ => panic!("no such kind: {kind}"),
    }
}

impl Metrics {
    /// Panics at the first line that isn't as the format wants it.
    pub fn parse(text: &str) -> Self {
        let mut lines = text.lines().peekable();
        let (mut samples, mut families) = (BTreeMap::new(), Vec::new());
        let mut family = (String::new(), "");
        let body = std::iter::from_fn(|| lines.next_if(|line| *line != "# EOF"));
        for line in body {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let [word, name, rest] = [(); 3].map(|()| words.next().expect(line));
                match word {
                    "HELP" => {
                        assert!(!families.contains(&name.to_owned()), "a second {name}");
                        families.push(name.to_owned());
                        assert!(rest.ends_with('.'), "{line}");
                    }
                    "TYPE" => {
                        assert_eq!(families.last().map(String::as_str), Some(name), "{line}");
                        family = (name.to_owned(), rest);
                    }
                    "UNIT" => assert!(name.ends_with(&format!("_{rest}")), "{line}"),
                    _ => panic!("{line}"),
                }
                continue;
            }
            let (key, value) = line.rsplit_once(' ').expect(line);
            let name = key.split('{').next().unwrap();
            let suffix = name.strip_prefix(&family.0).expect(line);
            assert!(suffixes(family.1).contains(&suffix), "{line} in a {}", family.1);
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "_{}=\",.+-/ ".contains(c);
            assert!(key.chars().all(is_plain), "{line}");
            let value: f64 = value.parse().expect(line);
            assert!(samples.insert(key.to_owned(), value).is_none(), "twice: {line}");
        }
        assert_eq!(lines.collect::<Vec<_>>(), ["# EOF"], "and nothing after it");
        Self { samples, families }
    }

    /// One that must be there.
    #[track_caller]
    pub fn known(&self, key: &str) -> f64 {
        *self.samples.get(key).unwrap_or_else(|| panic!("no {key} in {:#?}", self.samples.keys()))
    }

    /// All samples that begin like this.
    pub fn sum(&self, beginning: &str) -> f64 {
        let begins = |(key, _): &(&String, &f64)| key.starts_with(beginning);
        self.samples.iter().filter(begins).map(|(_, value)| value).sum()
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.samples.keys().map(String::as_str)
    }
}
