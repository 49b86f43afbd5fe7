//! Quantities as people write them: lengths of time, percentages, amounts of CPU and memory, ports.
//!
//! Each function takes text and gives a value or the reason why not; none of them panics.

use std::net::IpAddr;
use std::time::Duration;

/// Go's syntax: `1h30m`, `1.5s`, `100ms`, `0`. Longest: about 292 years, as in Go.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("invalid duration {text:?}; write for instance 1.5s, 100ms or 1h30m");
    let text_trimmed = text.strip_prefix('+').unwrap_or(text);
    if text_trimmed.starts_with('-') {
        return Err(format!("duration {text:?} must not be negative"));
    }
    if text_trimmed == "0" {
        return Ok(Duration::ZERO);
    }
    if text_trimmed.is_empty() {
        return Err(bad());
    }
    let mut rest = text_trimmed;
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let scale: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" => {
                return Err(format!("duration {text:?} has no unit; write for instance {text}s"));
            }
            _ => return Err(bad()),
        };
        nanos = nanos.checked_add(scaled(number, scale).ok_or_else(bad)?).ok_or_else(bad)?;
        rest = tail;
    }
    if nanos > i64::MAX as u128 {
        return Err(format!("duration {text:?} is too long"));
    }
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| bad())
}

/// A decimal number times `scale`, rounded down; at most 18 digits on either side of the point.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || whole.len() > 18 {
        return None;
    }
    let fraction = &fraction[..fraction.len().min(18)];
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let divisor = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    whole.checked_mul(scale)?.checked_add(part.checked_mul(scale)? / divisor)
}

/// As [`duration`], and as Istio wants almost every duration: at least 1 ms, in whole milliseconds.
pub fn duration_in_millis(text: &str) -> Result<Duration, String> {
    let value = duration(text)?;
    if value < Duration::from_millis(1) {
        return Err("duration must be greater than 1ms".to_owned());
    }
    if value.subsec_nanos() % 1_000_000 != 0 {
        return Err("only durations to ms precision are supported".to_owned());
    }
    Ok(value)
}

/// A Kubernetes quantity (`500m`, `1`, `128Mi`, `1e3`) in thousandths, rounded up.
pub fn quantity_millis(text: &str) -> Result<u128, String> {
    let bad = || format!("invalid quantity {text:?}; write for instance 500m, 2 or 128Mi");
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let scale: u128 = match suffix {
        "m" => 1,
        "" => 1_000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "P" => 1_000_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000_000,
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        "Ti" => 1_000 << 40,
        "Pi" => 1_000 << 50,
        "Ei" => 1_000 << 60,
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or_else(bad)?;
            let exponent: u32 = exponent.parse().map_err(|_| bad())?;
            10u128.checked_pow(exponent.min(18)).and_then(|p| p.checked_mul(1_000)).ok_or_else(bad)?
        }
    };
    scaled(number, scale).ok_or_else(bad)
}

/// A TCP port, 1 to 65535.
pub fn port(number: i64) -> Result<u16, String> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("port {number} must be in the range 1..65535")),
    }
}

/// A percentage, 0 to 100.
pub fn percent(number: f64) -> Result<f64, String> {
    if (0.0..=100.0).contains(&number) {
        Ok(number)
    } else {
        Err(format!("percentage {number} is not in range 0..100"))
    }
}

/// Standard base64, padding optional, line breaks ignored.
pub fn base64(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in text.bytes().filter(|b| !matches!(b, b'\n' | b'\r')).take_while(|b| *b != b'=') {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err("invalid base64".to_owned()),
        };
        bits = (bits << 6 | u32::from(six)) & 0xffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from(bits >> held & 0xff).unwrap_or_default());
        }
    }
    let rest = text.trim_end_matches(['\n', '\r', '=']);
    if rest.contains('=') || held >= 6 {
        return Err("invalid base64".to_owned());
    }
    Ok(out)
}

/// An address or a block of addresses: network and length of its prefix.
pub fn block(text: &str) -> Result<(IpAddr, u8), String> {
    let (address, length) =
        text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let bad = || format!("{text:?} is not an IP address or CIDR block");
    let address: IpAddr = address.parse().map_err(|_| bad())?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => longest,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().map_err(|_| bad())?,
        Some(_) => return Err(bad()),
    };
    if length > longest { Err(bad()) } else { Ok((address, length)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let check = |text: &str, want: Option<Duration>| {
            assert_eq!(duration(text).ok(), want, "{text}");
        };
        check("1h30m", Some(Duration::from_secs(5400)));
        check("1.5s", Some(Duration::from_millis(1500)));
        check("100ms", Some(Duration::from_millis(100)));
        check("0", Some(Duration::ZERO));
        check("0s", Some(Duration::ZERO));
        check(".5s", Some(Duration::from_millis(500)));
        check("1.s", Some(Duration::from_secs(1)));
        check("2us", Some(Duration::from_micros(2)));
        check("", None);
        check("5", None);
        check("5x", None);
        check("-1s", None);
        check("1.2.3s", None);
        check("s", None);
        check("1s ", None);
        check("99999999h", None);
    }

    #[test]
    fn istio_wants_whole_milliseconds_and_at_least_one() {
        assert!(duration_in_millis("1ms").is_ok());
        assert_eq!(duration_in_millis("0s"), Err("duration must be greater than 1ms".to_owned()));
        assert_eq!(
            duration_in_millis("1500us"),
            Err("only durations to ms precision are supported".to_owned())
        );
    }

    #[test]
    fn quantities_are_read_in_thousandths() {
        let check = |text: &str, want: Option<u128>| assert_eq!(quantity_millis(text).ok(), want, "{text}");
        check("500m", Some(500));
        check("2", Some(2000));
        check("0.1", Some(100));
        check("1Ki", Some(1_024_000));
        check("1e3", Some(1_000_000));
        check("", None);
        check("x", None);
        check("1Qi", None);
    }

    #[test]
    fn base64_is_decoded_with_or_without_padding() {
        let check = |text: &str, want: Option<&[u8]>| {
            assert_eq!(base64(text).ok().as_deref(), want, "{text}");
        };
        check("aGVsbG8=", Some(b"hello"));
        check("aGVsbG8", Some(b"hello"));
        check("", Some(b""));
        check("a", None);
        check("a=b", None);
        check("a b", None);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(text in "\\PC{0,24}") {
            let _ = duration(&text);
            let _ = duration_in_millis(&text);
            let _ = quantity_millis(&text);
            let _ = base64(&text);
        }

        #[test]
        fn a_duration_written_in_milliseconds_reads_back(ms in 1u64..1_000_000_000) {
            prop_assert_eq!(duration_in_millis(&format!("{ms}ms")), Ok(Duration::from_millis(ms)));
        }
    }
}
