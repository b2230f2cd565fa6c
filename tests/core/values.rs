//! Durations, which are read by hand in the core, against another reader of the same.

use crate::random::Random;
use consul_session::Options;
use consul_session::duration::{self, MILLISECOND, SECOND, Seconds};
use serde_json::{Value, json};

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
        let written = serde_json::to_string(&Seconds(nanoseconds)).unwrap();
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
        for value in [Value::from(text.parse::<f64>().unwrap()), json!(text)] {
            let result = Options::default().set("delay", &value);
            assert!(result.is_err(), "{value:?}");
        }
    }
}
