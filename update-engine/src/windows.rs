//! When a machine may restart into an update. Pure: the time is given.

use ashlar_image::machine::{Day, TimeZone, Window};
use jiff::civil::Weekday;
use jiff::tz::{Offset, TimeZone as Zone};
use jiff::{Timestamp, ToSpan, Zoned};

/// How far ahead the next window is looked for, in days: each has a day of the week.
const AHEAD: i64 = 8;

fn zone(window: &Window) -> Zone {
    match &window.time_zone {
        TimeZone::Offset(offset) => {
            Offset::from_seconds(i32::from(offset.0) * 60).map_or(Zone::UTC, Zone::fixed)
        }
        TimeZone::Place(name) => Zone::get(name).unwrap_or(Zone::UTC),
    }
}

const fn weekday(day: Day) -> Weekday {
    match day {
        Day::Mon => Weekday::Monday,
        Day::Tue => Weekday::Tuesday,
        Day::Wed => Weekday::Wednesday,
        Day::Thu => Weekday::Thursday,
        Day::Fri => Weekday::Friday,
        Day::Sat => Weekday::Saturday,
        Day::Sun => Weekday::Sunday,
    }
}

/// The window that begins on the day of `at`, if there is one: from and to, seconds since 1970. It begins at the time that a
/// clock on the wall shows; where summer time leaves that time out, at the moment of the change. It is as long as it
/// says, whatever the clocks do meanwhile; the second in which it ends belongs to it.
fn on_day(window: &Window, at: &Zoned) -> Option<(i64, i64)> {
    if !window.days.is_empty() && !window.days.iter().any(|day| weekday(*day) == at.weekday()) {
        return None;
    }
    let (hour, minute) = (i8::try_from(window.from.0 / 60).ok()?, i8::try_from(window.from.0 % 60).ok()?);
    // Of a time that is there twice the first one counts.
    let start =
        at.date().at(hour, minute, 0, 0).to_zoned(at.time_zone().clone()).ok()?.timestamp().as_second();
    Some((start, start.checked_add(i64::try_from(window.duration.0).ok()?)?))
}

/// All windows of `window` from the day before `now` on, in order.
fn upcoming(window: &Window, now: i64) -> impl Iterator<Item = (i64, i64)> + '_ {
    let today = Timestamp::from_second(now).ok().map(|time| time.to_zoned(zone(window)));
    (-1..=AHEAD).filter_map(move |days| {
        let day = today.as_ref()?.date().checked_add(days.days()).ok()?;
        // Noon is there on each day.
        let noon = day.at(12, 0, 0, 0).to_zoned(zone(window)).ok()?;
        on_day(window, &noon)
    })
}

/// Whether one of the windows is open at `now`, seconds since 1970. Without any window the machine may restart at any time.
pub fn is_open(windows: &[Window], now: i64) -> bool {
    windows.is_empty() || windows.iter().any(|w| upcoming(w, now).any(|(from, to)| from <= now && now <= to))
}

/// When the next window opens, seconds since 1970: `now` if one is open.
pub fn next_open(windows: &[Window], now: i64) -> Option<i64> {
    if is_open(windows, now) {
        return Some(now);
    }
    windows.iter().flat_map(|w| upcoming(w, now).map(|(from, _)| from).filter(|from| *from > now)).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_image::machine::{Seconds, TimeOfDay, UtcOffset};
    use proptest::prelude::*;

    fn window(days: &[Day], from: &str, seconds: u64, zone: &str) -> Window {
        Window {
            days: days.to_vec(),
            from: TimeOfDay::parse(from).unwrap(),
            duration: Seconds(seconds),
            time_zone: TimeZone::parse(zone).unwrap(),
        }
    }

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_second()
    }

    #[test]
    fn begin_and_end_to_the_second() {
        let daily = [window(&[], "02:33", 36_000, "UTC")];
        assert!(is_open(&daily, at("2026-11-25T02:33:00Z")));
        assert!(is_open(&daily, at("2026-11-25T12:33:00Z")), "as locksmith has it");
        assert!(!is_open(&daily, at("2026-11-25T12:33:01Z")));
        assert!(!is_open(&daily, at("2026-11-25T02:32:59Z")));
        let later = at("2026-11-25T12:33:01Z");
        assert_eq!(next_open(&daily, later), Some(later + 13 * 3600 + 59 * 60 + 59));
        // Over midnight, and over the end of a week.
        let saturday = [window(&[Day::Sat], "23:05", 11 * 3600, "UTC")];
        assert!(is_open(&saturday, at("2026-11-29T09:33:01Z")));
        assert!(!is_open(&saturday, at("2026-11-29T10:05:01Z")));
        assert_eq!(next_open(&saturday, at("2026-11-29T10:05:01Z")), Some(at("2026-12-05T23:05:00Z")));
        // What is no window is told by the configuration.
        for bad in ["25:00", "14", "-1:00", "foo"] {
            assert_eq!(TimeOfDay::parse(bad), None, "{bad}");
        }
        assert!(Day::ALL.iter().all(|(name, _)| *name != "foo" && name.len() == 3));
        assert!(is_open(&[], 0));
        assert_eq!(next_open(&[], 7), Some(7));
    }

    #[test]
    fn time_zones_and_summer_time() {
        let berlin = [window(&[], "02:30", 3600, "Europe/Berlin")];
        assert_eq!(next_open(&berlin, at("2026-01-10T00:00:00Z")), Some(at("2026-01-10T01:30:00Z")));
        assert_eq!(next_open(&berlin, at("2026-07-10T00:00:00Z")), Some(at("2026-07-10T00:30:00Z")));
        // On 29 March 2026 02:30 is left out: the clocks go from 02:00 to 03:00, at 01:00 UTC.
        let spring = next_open(&berlin, at("2026-03-29T00:00:00Z")).unwrap();
        assert_eq!(spring, at("2026-03-29T01:30:00Z"), "03:30 of summer time");
        // On 25 October 02:30 is there twice: the first one counts, and only once.
        assert_eq!(next_open(&berlin, at("2026-10-24T22:00:00Z")), Some(at("2026-10-25T00:30:00Z")));
        assert!(!is_open(&berlin, at("2026-10-25T01:45:00Z")));
        assert_eq!(next_open(&berlin, at("2026-10-25T01:45:00Z")), Some(at("2026-10-26T01:30:00Z")));
        let fixed = [window(&[], "02:30", 3600, "+05:30")];
        assert_eq!(next_open(&fixed, at("2026-01-10T00:00:00Z")), Some(at("2026-01-10T21:00:00Z")));
        assert_eq!(UtcOffset::parse("+05:30"), Some(UtcOffset(330)));
    }

    proptest! {
        #[test]
        fn in_three_zones_a_window_is_as_long_as_it_says(
            zone in prop::sample::select(vec!["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
            day in 0i64..730, minute in 0u16..1440, length in 600u64..86_400,
        ) {
            let window = [Window {
                days: Vec::new(),
                from: TimeOfDay(minute),
                duration: Seconds(length),
                time_zone: TimeZone::parse(zone).unwrap(),
            }];
            let now = at("2026-01-01T00:00:00Z") + day * 86_400;
            let start = next_open(&window, now).unwrap();
            prop_assert!(start >= now && start <= now + 26 * 3600, "one begins each day");
            prop_assert!(is_open(&window, start));
            if start > now {
                prop_assert!(!is_open(&window, start - 1) || length > 22 * 3600);
                let end = start + i64::try_from(length).unwrap();
                prop_assert!(is_open(&window, end));
                // The next day's may follow at once.
                if length < 22 * 3600 {
                    prop_assert!(!is_open(&window, end + 1), "{} {}", start, end);
                }
            }
        }
    }
}
