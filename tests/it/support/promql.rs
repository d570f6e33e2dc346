//! Queries of Prometheus, as far as it takes to know what they ask for.

/// A metric that a query reads, and what it wants of its labels.
#[derive(Debug, PartialEq, Eq)]
pub struct Selector {
    pub metric: String,
    pub matchers: Vec<Matcher>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Matcher {
    pub label: String,
    /// `=`, `!=`, `=~` or `!~`.
    pub operator: String,
    pub value: String,
}

/// What a query asks for.
#[derive(Debug, Default)]
pub struct Query {
    pub selectors: Vec<Selector>,
    /// Labels by which series are put together or matched.
    pub grouped_by: Vec<String>,
}

const GROUPINGS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
const WORDS: [&str; 6] = ["and", "or", "unless", "offset", "bool", "inf"];

struct Rest<'a>(&'a str);

impl Query {
    /// Panics where it isn't understood.
    pub fn parse(text: &str) -> Self {
        let (mut query, mut rest) = (Self::default(), Rest(text));
        while let Some(next) = rest.skip_space() {
            match next {
                'a'..='z' | 'A'..='Z' | '_' => query.take_word(&mut rest),
                '0'..='9' | '.' => {
                    rest.word();
                }
                '[' => {
                    rest.until(']');
                }
                '(' | ')' | '+' | '-' | '*' | '/' | '>' | '<' | '=' | ',' => rest.skip(1),
                other => panic!("{other} at {} in {text}", rest.0),
            }
        }
        query
    }

    fn take_word(&mut self, rest: &mut Rest<'_>) {
        let word = rest.word();
        let next = rest.skip_space();
        if GROUPINGS.contains(&word) {
            let labels = rest.until(')');
            let labels = labels.trim_start_matches('(').split(',').map(str::trim);
            self.grouped_by.extend(labels.map(str::to_owned));
        } else if next == Some('{') {
            let matchers = rest.until('}').trim_start_matches('{');
            let matchers = Self::matchers(matchers);
            self.selectors.push(Selector { metric: word.to_owned(), matchers });
        } else if next != Some('(') && !rest.begins_grouping() && !WORDS.contains(&word) {
            self.selectors.push(Selector { metric: word.to_owned(), matchers: Vec::new() });
        }
    }

    /// Of `a="x", b=~"y|z"`.
    fn matchers(text: &str) -> Vec<Matcher> {
        let mut rest = Rest(text);
        let mut found = Vec::new();
        while rest.skip_space().is_some() {
            let label = rest.word().to_owned();
            let operator = rest.until('"').trim().to_owned();
            assert!(["=", "!=", "=~", "!~"].contains(&operator.as_str()), "{text}");
            let value = rest.until('"').to_owned();
            if rest.skip_space() == Some(',') {
                rest.skip(1);
            }
            found.push(Matcher { label, operator, value });
        }
        found
    }
}

impl<'a> Rest<'a> {
    fn skip_space(&mut self) -> Option<char> {
        self.0 = self.0.trim_start();
        self.0.chars().next()
    }

    fn skip(&mut self, bytes: usize) {
        self.0 = &self.0[bytes..];
    }

    fn word(&mut self) -> &'a str {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "_:.".contains(c);
        let end = self.0.find(|c| !is_part(c)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        word
    }

    /// What comes before this, which is skipped too.
    fn until(&mut self, end: char) -> &'a str {
        let (before, rest) = self.0.split_once(end).unwrap_or_else(|| panic!("{end}: {}", self.0));
        self.0 = rest;
        before
    }

    /// Whether an aggregation goes on, as in `sum by (..)`.
    fn begins_grouping(&self) -> bool {
        let next = Rest(self.0).word();
        GROUPINGS.contains(&next) && Rest(&self.0[next.len()..]).skip_space() == Some('(')
    }
}

impl Matcher {
    /// Whether a label of this value fits.
    pub fn fits(&self, value: &str) -> bool {
        match self.operator.as_str() {
            "=" => self.value == value,
            "!=" => self.value != value,
            "=~" => self.value.split('|').any(|pattern| matches(pattern, value)),
            _ => !self.value.split('|').any(|pattern| matches(pattern, value)),
        }
    }
}

/// Patterns that are words, or begin or end with `.*`.
fn matches(pattern: &str, value: &str) -> bool {
    let word = pattern.trim_start_matches(".*").trim_end_matches(".*");
    let is_word = word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    assert!(is_word, "this test doesn't understand {pattern}");
    match (pattern.starts_with(".*"), pattern.ends_with(".*")) {
        (true, true) => value.contains(word),
        (true, false) => value.ends_with(word),
        (false, true) => value.starts_with(word),
        (false, false) => value == word,
    }
}

#[test]
fn what_a_query_asks_for_is_found() {
    let query = Query::parse(
        r#"histogram_quantile(0.99, sum by (le, a) (rate(x_bucket{a=~"u|v_.*", b!="w"}[5m])))
           - on (c) y > 1e3 and up"#,
    );
    let metrics: Vec<&str> = query.selectors.iter().map(|s| s.metric.as_str()).collect();
    assert_eq!(metrics, ["x_bucket", "y", "up"]);
    assert_eq!(query.grouped_by, ["le", "a", "c"]);
    let [a, b] = &query.selectors[0].matchers[..] else { panic!("{query:?}") };
    assert_eq!((a.label.as_str(), b.label.as_str()), ("a", "b"));
    assert!(a.fits("u") && a.fits("v_1") && !a.fits("w"));
    assert!(b.fits("u") && !b.fits("w"));
}
