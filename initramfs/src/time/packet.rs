//! NTP messages (RFC 5905, section 7.3; RFC 4330, section 5), as a client sees them.

use std::time::Duration;

/// Length of a message without extensions, in bytes.
pub const LENGTH: usize = 48;
/// Seconds from 1900, where NTP begins, to 1970.
const EPOCH: i128 = 2_208_988_800;
const NANOS: i128 = 1_000_000_000;
/// How far the server's time may lie before the earliest possible one and still be told as such, in seconds: the 32
/// bits of seconds begin again every 136 years, and the rest of these is the future.
const BEFORE: i128 = 20 * 365 * 86_400;

/// A time: nanoseconds since 1970.
pub type Nanos = i128;

/// A server's answer that belongs to the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Distance of the server to a reference clock, 1 to 15.
    pub stratum: u8,
    /// When it got the question.
    pub received: Nanos,
    /// When it sent the answer.
    pub sent: Nanos,
    /// How wrong its clock may be: half of the way to the reference clock, and the dispersion.
    pub distance: Duration,
}

/// Why a message is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// It is no answer to the question that was asked: whoever sent it did not see the question, or it is an old one.
    Foreign,
    /// The server wants to be asked less often (`RATE`).
    Rate,
    /// The server does not want to be asked at all (`DENY`, `RSTR`).
    Denied,
    /// The server's clock is not set (leap indicator 3, stratum 0 or above 15, no time in it).
    Unset,
    /// The server's clock may be wrong by more than a second and a half.
    Distant,
}

impl Bad {
    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Foreign => "it gave no answer to the question",
            Self::Rate => "it wants to be asked less often",
            Self::Denied => "it refuses to serve this machine",
            Self::Unset => "its own clock is not set",
            Self::Distant => "its own clock is too inexact",
        }
    }
}

/// How wrong a server's clock may be to be used (`MAXDIST` of RFC 5905 and half a second for what it waits).
const MAX_DISTANCE: Duration = Duration::from_millis(1500);

/// A question: version 4, mode 3. The only other field that is set is the time of sending: it comes back in the answer,
/// and is a random number instead, which is a secret to those who do not see the question.
pub fn question(cookie: u64) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[0] = 4 << 3 | 3;
    bytes[40..].copy_from_slice(&cookie.to_be_bytes());
    bytes
}

fn field<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..)?.first_chunk().copied()
}

/// A short time span (16 bits of seconds, 16 bits of fraction).
fn span(bytes: [u8; 4]) -> Duration {
    let [a, b, c, d] = bytes;
    let (seconds, fraction) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    Duration::new(seconds.into(), ((u64::from(fraction) * 1_000_000_000) >> 16) as u32)
}

/// The time that `stamp` means: the first one not more than twenty years before `earliest` (seconds since 1970).
fn time(stamp: u64, earliest: i64) -> Nanos {
    let start = i128::from(earliest) - BEFORE;
    let seconds = i128::from(stamp >> 32) - EPOCH;
    let since = (seconds - start).rem_euclid(1 << 32);
    let fraction = (i128::from(stamp & 0xffff_ffff) * NANOS) >> 32;
    (start + since) * NANOS + fraction
}

/// Reads an answer to the question with `cookie`. No clock is right that tells a time before `earliest`, which is in
/// seconds since 1970.
pub fn parse(data: &[u8], cookie: u64, earliest: i64) -> Result<Answer, Bad> {
    let head = data.first_chunk::<LENGTH>().ok_or(Bad::Foreign)?;
    let stamp = |at| field(head, at).map(u64::from_be_bytes).ok_or(Bad::Foreign);
    let short = |at| field(head, at).map(span).ok_or(Bad::Foreign);
    let (first, stratum) = (head[0], head[1]);
    let distance = short(4)? / 2 + short(8)?;
    let reference: [u8; 4] = field(head, 12).ok_or(Bad::Foreign)?;
    let (origin, received, sent) = (stamp(24)?, stamp(32)?, stamp(40)?);
    let (leap, version, mode) = (first >> 6, first >> 3 & 7, first & 7);
    // A kiss of death must be an answer too: else anybody could silence a server.
    if origin != cookie || mode != 4 || !(1..=4).contains(&version) {
        return Err(Bad::Foreign);
    }
    if stratum == 0 {
        return Err(match &reference {
            b"RATE" => Bad::Rate,
            b"DENY" | b"RSTR" => Bad::Denied,
            _ => Bad::Unset,
        });
    }
    if leap == 3 || stratum > 15 || received == 0 || sent == 0 {
        return Err(Bad::Unset);
    }
    if distance > MAX_DISTANCE {
        return Err(Bad::Distant);
    }
    let (received, sent) = (time(received, earliest), time(sent, earliest));
    if sent < received {
        return Err(Bad::Unset);
    }
    Ok(Answer { stratum, received, sent, distance })
}

/// What one question and its answer tell about the own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// How far the server's clock is before the own one, in nanoseconds.
    pub offset: Nanos,
    /// How far the offset may be from the truth, in nanoseconds.
    pub error: Nanos,
    /// How long the way there and back took, in nanoseconds.
    pub delay: Nanos,
}

impl Sample {
    /// From an answer, the own times of asking and of getting the answer, and how long that took by a clock that is
    /// never set: where the two do not fit, the clock was set in between and the answer tells nothing.
    pub fn new(answer: &Answer, asked: Nanos, answered: Nanos, took: Duration) -> Option<Self> {
        let took = i128::try_from(took.as_nanos()).ok()?;
        if (answered - asked - took).abs() > 10_000_000 {
            return None;
        }
        let delay = (answered - asked) - (answer.sent - answer.received);
        let offset = i128::midpoint(answer.received - asked, answer.sent - answered);
        // A millisecond for the clocks' own grain, and so that no interval is empty.
        let error = delay.max(0) / 2 + i128::try_from(answer.distance.as_nanos()).ok()? + 1_000_000;
        (delay > -10_000_000).then_some(Self { offset, error, delay: delay.max(0) })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-01-01.
    pub(crate) const EARLIEST: i64 = 1_767_225_600;

    pub(crate) fn stamp(nanos: Nanos) -> u64 {
        let seconds = (nanos.div_euclid(NANOS) + EPOCH).rem_euclid(1 << 32);
        let fraction = (nanos.rem_euclid(NANOS) << 32) / NANOS;
        u64::try_from(seconds << 32 | fraction).unwrap()
    }

    /// What a good server at `time` answers.
    pub(crate) fn answer(cookie: u64, time: Nanos) -> Vec<u8> {
        let mut bytes = vec![4 << 3 | 4, 2, 6, 0xec];
        bytes.extend([0, 0, 0x10, 0, 0, 0, 0x08, 0, 10, 0, 0, 1]);
        for value in [stamp(time - NANOS), cookie, stamp(time), stamp(time + 50_000)] {
            bytes.extend(value.to_be_bytes());
        }
        bytes
    }

    fn now() -> Nanos {
        i128::from(EARLIEST) * NANOS + 400 * 86_400 * NANOS + 123_456_789
    }

    #[test]
    fn a_good_answer() {
        let answer = parse(&answer(7, now()), 7, EARLIEST).unwrap();
        assert_eq!(answer.stratum, 2);
        assert!((answer.received - now()).abs() < 2);
        assert_eq!(answer.distance, Duration::from_micros(31250 + 31250));
        // The own clock is a second behind, the way takes 10 ms there and 10 ms back.
        let (asked, took) = (now() - NANOS - 10_000_000, Duration::from_millis(20));
        let sample = Sample::new(&answer, asked, asked + 20_050_000, took).unwrap();
        assert!((sample.offset - NANOS).abs() < 1000, "{sample:?}");
        assert!((sample.delay - 20_000_000).abs() < 1000, "{sample:?}");
        assert_eq!(Sample::new(&answer, asked, asked + NANOS, took), None, "the clock was set in between");
    }

    #[test]
    fn bad_answers_each_for_its_reason() {
        let change = |at: usize, bytes: &[u8]| {
            let mut bad = answer(7, now());
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            parse(&bad, 7, EARLIEST).unwrap_err()
        };
        assert_eq!(parse(&answer(8, now()), 7, EARLIEST), Err(Bad::Foreign), "another question's");
        assert_eq!(parse(&answer(7, now())[..47], 7, EARLIEST), Err(Bad::Foreign));
        for mode in [0, 1, 2, 3, 5, 6, 7] {
            assert_eq!(change(0, &[4 << 3 | mode]), Bad::Foreign);
        }
        assert_eq!(change(0, &[4]), Bad::Foreign, "version 0");
        assert_eq!(change(0, &[3 << 6 | 4 << 3 | 4]), Bad::Unset, "leap alarm");
        assert_eq!(change(1, &[16]), Bad::Unset);
        assert_eq!(change(1, &[0]), Bad::Unset);
        assert_eq!(change(40, &[0; 8]), Bad::Unset);
        assert_eq!(
            change(40, &stamp(now() - NANOS).to_be_bytes()),
            Bad::Unset,
            "sent before it was received"
        );
        assert_eq!(change(8, &[0, 2]), Bad::Distant);
        for (code, bad) in
            [(b"RATE", Bad::Rate), (b"DENY", Bad::Denied), (b"RSTR", Bad::Denied), (b"INIT", Bad::Unset)]
        {
            let mut kiss = answer(7, now());
            kiss[1] = 0;
            kiss[12..16].copy_from_slice(code);
            assert_eq!(parse(&kiss, 7, EARLIEST), Err(bad));
            assert_eq!(parse(&kiss, 8, EARLIEST), Err(Bad::Foreign), "a forged kiss silences nobody");
        }
    }

    #[test]
    fn the_end_of_the_32_bits_is_no_end() {
        // 2036-02-07T06:28:16Z is 0.
        let turn = ((1i128 << 32) - EPOCH) * NANOS;
        assert_eq!(time(0, EARLIEST), turn);
        assert_eq!(time(stamp(turn + NANOS), EARLIEST), turn + NANOS);
        // A server that lives in the past is seen to.
        let past = (i128::from(EARLIEST) - 86_400) * NANOS;
        assert_eq!(time(stamp(past), EARLIEST), past);
    }

    proptest! {
        #[test]
        fn any_bytes(data in proptest::collection::vec(any::<u8>(), 0..80), cookie: u64, earliest: i64) {
            let _ = parse(&data, cookie, earliest);
        }

        #[test]
        fn times_come_back(seconds in 0i128..3_600_000_000, fraction in 0i128..NANOS) {
            let wanted = (i128::from(EARLIEST) + seconds) * NANOS + fraction;
            prop_assert!((time(stamp(wanted), EARLIEST) - wanted).abs() <= 1);
        }

        #[test]
        fn changed_answers(changes in proptest::collection::vec((0usize..48, any::<u8>()), 0..6), took in 0u64..1_000_000_000_000) {
            let mut data = answer(7, now());
            for (at, value) in changes {
                data[at] = value;
            }
            if let Ok(answer) = parse(&data, 7, EARLIEST) {
                prop_assert!((1..16).contains(&answer.stratum) && answer.distance <= MAX_DISTANCE);
                let _ = Sample::new(&answer, now(), now() + i128::from(took), Duration::from_nanos(took));
            }
        }
    }
}
