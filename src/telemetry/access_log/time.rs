//! Dates for log lines, from a monotonic clock and one look at the wall clock when the process starts.

use crate::clock::{self, Duration, Instant, SystemTime};
use std::io::Write;

/// One moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Epoch {
    at: Instant,
    since_1970: Duration,
}

impl Epoch {
    /// Now.
    pub fn start() -> Epoch {
        Epoch::new(clock::now(), clock::wall())
    }

    /// `at` was `wall`.
    pub fn new(at: Instant, wall: SystemTime) -> Epoch {
        Epoch { at, since_1970: wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() }
    }

    /// The moment itself, since 1970.
    pub fn since_1970(&self) -> Duration {
        self.since_1970
    }

    /// `at` as the time since 1970, in UTC.
    pub fn wall(&self, at: Instant) -> Duration {
        match at.checked_duration_since(self.at) {
            Some(later) => self.since_1970 + later,
            None => self.since_1970.saturating_sub(self.at - at),
        }
    }
}

/// A piece of a strftime pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    Year,
    YearShort,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    /// Digits of the fraction, 1 to 9.
    Fraction(u8),
    Unix,
    UnixMillis,
}

/// How a moment is written: a subset of strftime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TimeFormat(Box<[Piece]>);

impl TimeFormat {
    /// `2006-01-02T15:04:05.000Z`
    pub(super) fn iso_millis() -> TimeFormat {
        use Piece::{Day, Fraction, Hour, Literal, Minute, Month, Second, Year};
        let literal = |text: &str| Literal(text.into());
        TimeFormat(Box::new([
            Year,
            literal("-"),
            Month,
            literal("-"),
            Day,
            literal("T"),
            Hour,
            literal(":"),
            Minute,
            literal(":"),
            Second,
            literal("."),
            Fraction(3),
            literal("Z"),
        ]))
    }

    /// Compiles a pattern; the error is the part that is not known.
    pub(super) fn parse(pattern: &str) -> Result<TimeFormat, String> {
        let mut pieces = Vec::new();
        let mut rest = pattern;
        while let Some(at) = rest.find('%') {
            push(&mut pieces, &rest[..at]);
            let specifier = &rest[at + 1..];
            let digits = specifier.bytes().take_while(u8::is_ascii_digit).count();
            let letter = specifier[digits..].chars().next();
            let end = digits + letter.map_or(0, char::len_utf8);
            let unknown = || format!("%{}", &specifier[..end]);
            match (specifier[..digits].parse::<u8>().ok(), letter) {
                (None, Some('f')) if digits == 0 => pieces.push(Piece::Fraction(9)),
                (Some(digits @ 1..=9), Some('f')) => pieces.push(Piece::Fraction(digits)),
                (None, Some('s')) if digits == 0 => pieces.push(Piece::Unix),
                (Some(3), Some('s')) => pieces.push(Piece::UnixMillis),
                (None, Some(letter)) if digits == 0 => plain(&mut pieces, letter).ok_or_else(unknown)?,
                _ => return Err(unknown()),
            }
            rest = &specifier[end..];
        }
        push(&mut pieces, rest);
        Ok(TimeFormat(pieces.into()))
    }

    /// Appends the moment that is `since_1970`.
    pub(super) fn write(&self, since_1970: Duration, out: &mut Vec<u8>) {
        let seconds = since_1970.as_secs();
        let (year, month, day) = date(seconds / 86_400);
        let of_day = seconds % 86_400;
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Year => digits(out, year, 4),
                Piece::YearShort => digits(out, year % 100, 2),
                Piece::Month => digits(out, month, 2),
                Piece::Day => digits(out, day, 2),
                Piece::Hour => digits(out, of_day / 3600, 2),
                Piece::Minute => digits(out, of_day / 60 % 60, 2),
                Piece::Second => digits(out, of_day % 60, 2),
                Piece::Fraction(wanted) => {
                    let nanos = u64::from(since_1970.subsec_nanos());
                    digits(out, nanos / 10u64.pow(9 - u32::from(*wanted)), usize::from(*wanted));
                }
                Piece::Unix => write(out, seconds),
                Piece::UnixMillis => write(out, since_1970.as_millis() as u64),
            }
        }
    }
}

/// The pieces of one letter; `None` for a letter that is not known.
fn plain(pieces: &mut Vec<Piece>, letter: char) -> Option<()> {
    let dash = |pieces: &mut Vec<Piece>| push(pieces, "-");
    let colon = |pieces: &mut Vec<Piece>| push(pieces, ":");
    match letter {
        'Y' => pieces.push(Piece::Year),
        'y' => pieces.push(Piece::YearShort),
        'm' => pieces.push(Piece::Month),
        'd' => pieces.push(Piece::Day),
        'H' => pieces.push(Piece::Hour),
        'M' => pieces.push(Piece::Minute),
        'S' => pieces.push(Piece::Second),
        'z' => push(pieces, "+0000"),
        'Z' => push(pieces, "UTC"),
        'F' => {
            pieces.push(Piece::Year);
            dash(pieces);
            pieces.push(Piece::Month);
            dash(pieces);
            pieces.push(Piece::Day);
        }
        'T' => {
            pieces.push(Piece::Hour);
            colon(pieces);
            pieces.push(Piece::Minute);
            colon(pieces);
            pieces.push(Piece::Second);
        }
        _ => return None,
    }
    Some(())
}

fn push(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Literal(text.into()));
    }
}

/// Year, month and day of a day counted from 1970-01-01, by Howard Hinnant's `civil_from_days`.
fn date(days: u64) -> (u64, u64, u64) {
    let from_march = days + 719_468;
    let era = from_march / 146_097;
    let of_era = from_march % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

/// Appends `value` with leading zeros.
fn digits(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let start = out.len();
    out.resize(start + width, b'0');
    for place in out[start..].iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn write(out: &mut Vec<u8>, value: u64) {
    // A vector takes everything.
    let _ = write!(out, "{value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: &TimeFormat, since_1970: Duration, expected: &str) {
        let mut out = Vec::new();
        format.write(since_1970, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn moments_are_written_as_utc_dates() {
        let iso = TimeFormat::iso_millis();
        let rows = [
            (0, 0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, 7, "2000-02-29T00:00:00.007Z"),
            (1_136_214_245, 999, "2006-01-02T15:04:05.999Z"),
            (1_709_164_799, 500, "2024-02-28T23:59:59.500Z"),
            (1_709_251_199, 1, "2024-02-29T23:59:59.001Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000Z"),
        ];
        for (seconds, millis, expected) in rows {
            check(&iso, Duration::from_secs(seconds) + Duration::from_millis(millis), expected);
        }
    }

    #[test]
    fn patterns_are_a_subset_of_strftime_and_the_rest_is_named() {
        let moment = Duration::new(1_136_214_245, 123_456_789);
        let rows = [
            ("%Y/%m/%dT%H:%M:%S%z %s", Ok("2006/01/02T15:04:05+0000 1136214245")),
            ("%F %T.%3f", Ok("2006-01-02 15:04:05.123")),
            ("%s.%6f|%f|%1f", Ok("1136214245.123456|123456789|1")),
            ("%3s %y %Z", Ok("1136214245123 06 UTC")),
            ("plain", Ok("plain")),
            ("%Q", Err("%Q")),
            ("%0f", Err("%0f")),
            ("%é", Err("%é")),
            ("50%", Err("%")),
        ];
        for (pattern, expected) in rows {
            match (TimeFormat::parse(pattern), expected) {
                (Ok(format), Ok(text)) => check(&format, moment, text),
                (got, Err(part)) => assert_eq!(got, Err(part.to_owned()), "{pattern}"),
                (got, expected) => panic!("{pattern}: {got:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn an_instant_before_the_epoch_was_taken_still_has_a_date() {
        let now = clock::now();
        let epoch = Epoch::new(now, SystemTime::UNIX_EPOCH + Duration::from_secs(100));
        assert_eq!(epoch.wall(now + Duration::from_millis(5)), Duration::from_millis(100_005));
        if let Some(earlier) = now.checked_sub(Duration::from_secs(1)) {
            assert_eq!(epoch.wall(earlier), Duration::from_secs(99));
        }
    }
}
