//! The values that are read by hand in the core, against other readers of the same: addresses and durations.

use crate::random::Random;
use consul_session::Options;
use consul_session::duration::{self, MILLISECOND, SECOND};
use consul_session::json::Json;
use std::net::Ipv6Addr;

/// The host as it stands in a URL, if it is accepted.
fn host(text: &str) -> Option<String> {
    let mut options = Options::default();
    options.set("host", &Json::from(text)).ok()?;
    options.host.map(|host| host.as_str().to_owned())
}

#[track_caller]
fn same_as_std(text: &str) {
    let expected = text.parse::<Ipv6Addr>().ok().map(|_| format!("[{text}]"));
    assert_eq!(host(text), expected, "{text:?}");
    assert_eq!(host(&format!("[{text}]")), expected, "{text:?} in brackets");
}

#[test]
fn ipv6_addresses_are_those_of_std() {
    for text in [
        "::",
        "::1",
        "1::",
        "1::8",
        "1:2:3:4:5:6:7:8",
        "1:2:3:4:5:6:7::",
        "::2:3:4:5:6:7:8",
        "1:2:3::5:6:7:8",
        "fe80::1",
        "2001:DB8::A",
        "::ffff:1.2.3.4",
        "64:ff9b::255.255.255.255",
        "1:2:3:4:5:6:1.2.3.4",
        "::0.0.0.0",
        // None of these is one.
        ":",
        ":::",
        "::::",
        "1:",
        ":1",
        "1:2",
        "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9",
        "1::2::3",
        "::1::",
        "1:::2",
        "12345::",
        "g::",
        "1:2:3:4:5:6:7:8::",
        "::1:2:3:4:5:6:7:8",
        "1:2:3:4::5:6:7:8",
        ":1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:",
        "fe80::1%eth0",
        "::1.2.3",
        "::1.2.3.4.5",
        "::1.2.3.256",
        "::1.2.3.04",
        "::01.2.3.4",
        "::1.2.3.",
        "::.1.2.3",
        "::+1.2.3.4",
        "::1.2.3.4:5",
        "1.2.3.4::",
        "1.2.3.4:1.2.3.4",
        "::1.2.3.4:1.2.3.4",
        "1:2:3:4:5:6:7:1.2.3.4",
        "::1 ",
        ":: 1",
        "::-1",
        "::+1",
    ] {
        // Spaces around a host are nothing.
        if text.trim() == text {
            same_as_std(text);
        }
    }
}

#[test]
fn generated_ipv6_addresses_are_those_of_std() {
    let mut random = Random::new(6);
    let mut accepted = 0;
    for _ in 0..20_000 {
        let mut parts: Vec<String> = (0..random.below(10)).map(|_| group(&mut random)).collect();
        if random.below(3) == 0 {
            parts.push((0..4).map(|_| octet(&mut random)).collect::<Vec<_>>().join("."));
        }
        let mut text = parts.join(":");
        // A gap somewhere, between groups or at an end, and sometimes a second one.
        for _ in 0..random.pick(&[0, 1, 1, 1, 2]) {
            let places: Vec<usize> = text.match_indices(':').map(|(at, _)| at).chain([0, text.len()]).collect();
            let at = random.pick(&places);
            text.insert_str(at, random.pick(&[":", ":", "::"]));
        }
        // A slip.
        if random.below(8) == 0 && !text.is_empty() {
            let at = random.below(text.len());
            text.replace_range(at..=at, random.pick(&["", ":", "::", ".", "f", "g", "0", "+"]));
        }
        if text.contains(':') {
            same_as_std(&text);
            accepted += usize::from(host(&text).is_some());
        }
    }
    assert!(accepted > 1_500, "too few addresses to say much: {accepted}");
}

fn group(random: &mut Random) -> String {
    let digits = random.pick(&[1, 1, 2, 3, 4, 4, 4, 5]);
    let digits = if random.below(40) == 0 { 0 } else { digits };
    (0..digits).map(|_| random.pick(&['0', '1', '9', 'a', 'f', 'A', 'F'])).collect()
}

fn octet(random: &mut Random) -> String {
    random.pick(&["0", "1", "9", "10", "99", "127", "199", "255", "255", "256", "00", "01", "001", "1000", ""]).to_string()
}

/// A duration by the definition: whole nanoseconds of each part, in integers of any size that is needed.
fn exact(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: i128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let whole: String = rest.chars().take_while(char::is_ascii_digit).collect();
        rest = &rest[whole.len()..];
        let mut fraction = String::new();
        if let Some(behind) = rest.strip_prefix('.') {
            fraction = behind.chars().take_while(char::is_ascii_digit).collect();
            rest = &behind[fraction.len()..];
        }
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let unit: String = rest.chars().take_while(|c| !c.is_ascii_digit() && *c != '.').collect();
        rest = &rest[unit.len()..];
        let size: i128 = match unit.as_str() {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let numerator: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
        let denominator = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
        total += whole.parse::<i128>().unwrap_or(0) * size + numerator * size / denominator;
    }
    i64::try_from(sign * total).ok()
}

#[test]
fn generated_durations_are_read_exactly() {
    let mut random = Random::new(20);
    let mut accepted = 0;
    for _ in 0..20_000 {
        let mut text = random.pick(&["", "", "", "-", "+"]).to_string();
        for _ in 0..random.below(4) {
            text += random.pick(&["", "0", "1", "20", "59", "600", "2562047", "9223372036"]);
            if random.below(3) == 0 {
                text += random.pick(&[".", ".0", ".5", ".25", ".001", ".123456789", ".999999"]);
            }
            text += random.pick(&["s", "s", "s", "m", "h", "ms", "us", "µs", "μs", "ns", "", "d", "S", " "]);
        }
        let expected = exact(&text);
        assert_eq!(duration::parse_go(&text), expected, "{text:?}");
        accepted += usize::from(expected.is_some());
    }
    assert!(accepted > 5_000, "{accepted}");
}

#[test]
fn what_is_written_reads_as_the_same() {
    let mut random = Random::new(15);
    for _ in 0..5_000 {
        // Of every size, and round as durations are.
        let rounded = random.pick(&[1, 1_000, MILLISECOND, SECOND, 60 * SECOND]);
        let nanoseconds = ((random.next() as i64) >> random.below(63)) / rounded * rounded;
        assert_eq!(duration::parse_go(&duration::format(nanoseconds)), Some(nanoseconds));
        let written = Json::Seconds(nanoseconds).to_string();
        assert_eq!(duration::parse(&written), Some(nanoseconds), "{written}");
    }
}

#[test]
fn seconds_are_the_same_as_a_number_and_as_a_text() {
    let mut random = Random::new(60);
    for _ in 0..5_000 {
        let milliseconds = random.below(86_400_000) as i64;
        let text = format!("{}.{:03}", milliseconds / 1_000, milliseconds % 1_000);
        assert_eq!(duration::from_seconds(text.parse().unwrap()), Some(milliseconds * MILLISECOND), "{text}");
        assert_eq!(duration::parse(&text), Some(milliseconds * MILLISECOND), "{text}");
    }
}

#[test]
fn seconds_that_are_finer_than_a_millisecond_are_refused_as_a_number_and_as_a_text() {
    for text in ["0.0005", "15.0001", "0.0000001", "0.000000001", "-0.0000001", "1.0000004"] {
        for value in [Json::Fraction(text.parse().unwrap()), Json::from(text)] {
            let result = Options::default().set("delay", &value);
            assert!(result.is_err(), "{value:?}");
        }
    }
}
