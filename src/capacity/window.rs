//! Calendar windows in a time zone.
//!
//! A window is half-open and named by the UTC instant at which it starts, so
//! nothing has to be reset by a job: a new window simply has another name.
//! Weeks start on Monday. The hour that is repeated when summer time ends is a
//! window of its own; an hour that is skipped doesn't exist.

use chrono::{
    DateTime, Datelike, Days, Duration, MappedLocalTime, Months, NaiveDateTime, TimeZone, Timelike,
    Utc,
};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowKind {
    /// All time.
    Total,
    Hour,
    Day,
    Week,
    Month,
}

impl WindowKind {
    pub const COUNT: usize = 5;

    pub const ALL: [Self; Self::COUNT] =
        [Self::Total, Self::Hour, Self::Day, Self::Week, Self::Month];

    /// The place of this kind in arrays with one entry per window.
    pub const fn index(self) -> usize {
        self as usize
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }
}

/// One stretch of time in which calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub start: Timestamp,
    /// When the next one starts; none for all time.
    pub end: Option<Timestamp>,
}

/// A moment, and the starts of the windows that it lies in, one per [`WindowKind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Windows {
    moment: Timestamp,
    starts: [Timestamp; WindowKind::COUNT],
}

/// A quarter of an hour, counted from 1970: no window of any zone begins within one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot(pub i32);

impl Slot {
    const SECONDS: i64 = 15 * 60;
    pub const PER_DAY: i32 = 24 * 4;

    pub fn of(moment: Timestamp) -> Self {
        let slot = moment.timestamp().div_euclid(Self::SECONDS);
        Self(i32::try_from(slot).unwrap_or(if slot < 0 { i32::MIN } else { i32::MAX }))
    }

    pub fn start(self) -> Timestamp {
        DateTime::from_timestamp(i64::from(self.0) * Self::SECONDS, 0).unwrap_or_default()
    }
}

impl Windows {
    pub fn at(moment: Timestamp, zone: Tz) -> Self {
        let starts = WindowKind::ALL.map(|kind| Window::at(kind, moment, zone).start);
        Self { moment, starts }
    }

    pub const fn start(&self, kind: WindowKind) -> Timestamp {
        self.starts[kind.index()]
    }

    pub const fn moment(&self) -> Timestamp {
        self.moment
    }
}

impl Window {
    /// The window of this kind that `moment` lies in.
    pub fn at(kind: WindowKind, moment: Timestamp, zone: Tz) -> Self {
        let local = moment.with_timezone(&zone).naive_local();
        let midnight = local.date().and_time(chrono::NaiveTime::MIN);
        match kind {
            WindowKind::Total => Self { start: DateTime::UNIX_EPOCH, end: None },
            WindowKind::Hour => hour(moment, local, zone),
            WindowKind::Day => days(midnight, midnight + Days::new(1), zone),
            WindowKind::Week => {
                let since_monday = local.weekday().num_days_from_monday();
                let monday = midnight - Days::new(u64::from(since_monday));
                days(monday, monday + Days::new(7), zone)
            }
            WindowKind::Month => {
                let first = midnight - Days::new(u64::from(local.day0()));
                days(first, first + Months::new(1), zone)
            }
        }
    }
}

fn days(start: NaiveDateTime, end: NaiveDateTime, zone: Tz) -> Window {
    Window { start: instants(start, zone).0, end: Some(instants(end, zone).0) }
}

fn hour(moment: Timestamp, local: NaiveDateTime, zone: Tz) -> Window {
    let full_hour =
        local.date().and_time(chrono::NaiveTime::MIN) + Duration::hours(i64::from(local.hour()));
    let (first, second) = instants(full_hour, zone);
    let next = instants(full_hour + Duration::hours(1), zone).0;
    // Where the hour is repeated, its first pass ends when the second begins.
    let (start, end) = if moment < second { (first, second) } else { (second, next) };
    Window { start, end: Some(end) }
}

/// The instants at which a wall clock in `zone` shows `local`: two (maybe
/// equal), or where the clock jumps over it, the first instant after the jump.
fn instants(local: NaiveDateTime, zone: Tz) -> (Timestamp, Timestamp) {
    /// No zone has ever jumped further than a day.
    const LONGEST_JUMP_MINUTES: i64 = 24 * 60;
    for minutes in 0..=LONGEST_JUMP_MINUTES {
        match zone.from_local_datetime(&(local + Duration::minutes(minutes))) {
            MappedLocalTime::Single(at) => return (at.with_timezone(&Utc), at.with_timezone(&Utc)),
            MappedLocalTime::Ambiguous(first, second) => {
                return (first.with_timezone(&Utc), second.with_timezone(&Utc));
            }
            MappedLocalTime::None => {}
        }
    }
    let at = Utc.from_utc_datetime(&local);
    (at, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[track_caller]
    fn assert_window(kind: WindowKind, zone: Tz, moment: &str, start: &str, end: &str) {
        let window = Window::at(kind, at(moment), zone);
        assert_eq!(window, Window { start: at(start), end: Some(at(end)) });
    }

    #[test]
    fn the_repeated_hour_in_new_york_is_a_window_of_its_own() {
        let zone = chrono_tz::America::New_York;
        let hour = WindowKind::Hour;
        assert_window(
            hour,
            zone,
            "2026-11-01T05:30:00Z",
            "2026-11-01T05:00:00Z",
            "2026-11-01T06:00:00Z",
        );
        assert_window(
            hour,
            zone,
            "2026-11-01T06:30:00Z",
            "2026-11-01T06:00:00Z",
            "2026-11-01T07:00:00Z",
        );
        assert_window(
            WindowKind::Day,
            zone,
            "2026-11-01T06:30:00Z",
            "2026-11-01T04:00:00Z",
            "2026-11-02T05:00:00Z",
        );
    }

    #[test]
    fn the_skipped_hour_in_london_does_not_exist() {
        let zone = chrono_tz::Europe::London;
        assert_window(
            WindowKind::Hour,
            zone,
            "2026-03-29T00:59:59Z",
            "2026-03-29T00:00:00Z",
            "2026-03-29T01:00:00Z",
        );
        assert_window(
            WindowKind::Hour,
            zone,
            "2026-03-29T01:00:00Z",
            "2026-03-29T01:00:00Z",
            "2026-03-29T02:00:00Z",
        );
    }

    #[test]
    fn zones_off_the_full_hour_have_hours_and_days_of_their_own() {
        let zone = chrono_tz::Asia::Kathmandu;
        assert_window(
            WindowKind::Hour,
            zone,
            "2026-06-01T00:20:00Z",
            "2026-06-01T00:15:00Z",
            "2026-06-01T01:15:00Z",
        );
        assert_window(
            WindowKind::Month,
            zone,
            "2026-06-01T00:20:00Z",
            "2026-05-31T18:15:00Z",
            "2026-06-30T18:15:00Z",
        );
    }

    #[test]
    fn weeks_start_on_monday_and_months_end_at_the_years_end() {
        let zone = Tz::UTC;
        assert_window(
            WindowKind::Week,
            zone,
            "2026-11-22T23:59:59Z",
            "2026-11-16T00:00:00Z",
            "2026-11-23T00:00:00Z",
        );
        assert_window(
            WindowKind::Month,
            zone,
            "2026-12-31T23:59:59Z",
            "2026-12-01T00:00:00Z",
            "2027-01-01T00:00:00Z",
        );
    }

    #[test]
    fn no_window_of_any_zone_begins_within_a_slot() {
        for zone in chrono_tz::TZ_VARIANTS {
            for kind in [WindowKind::Day, WindowKind::Week, WindowKind::Month] {
                let mut window = Window::at(kind, at("2025-12-01T00:00:00Z"), zone);
                while window.start < at("2028-01-01T00:00:00Z") {
                    assert_eq!(Slot::of(window.start).start(), window.start, "{zone} {kind:?}");
                    let hour = Window::at(WindowKind::Hour, window.start, zone);
                    assert_eq!(Slot::of(hour.start).start(), hour.start, "{zone} {hour:?}");
                    window = Window::at(kind, window.end.unwrap(), zone);
                }
            }
        }
    }

    #[test]
    fn windows_follow_each_other_without_gap_or_overlap() {
        let zones = [
            chrono_tz::America::New_York,
            chrono_tz::Europe::London,
            chrono_tz::Australia::Lord_Howe,
            chrono_tz::Asia::Kathmandu,
        ];
        for zone in zones {
            for kind in [WindowKind::Hour, WindowKind::Day, WindowKind::Week, WindowKind::Month] {
                let mut window = Window::at(kind, at("2026-01-01T00:00:00Z"), zone);
                while window.start < at("2027-02-01T00:00:00Z") {
                    let end = window.end.unwrap();
                    assert!(end > window.start, "{zone} {kind:?} {window:?}");
                    let last = Window::at(kind, end - Duration::seconds(1), zone);
                    assert_eq!(last, window, "{zone} {kind:?}");
                    window = Window::at(kind, end, zone);
                    assert_eq!(window.start, end, "{zone} {kind:?}");
                }
            }
        }
    }
}
