//! The core's own parser of durations, compared with another implementation.

use consul_session::Options;
use consul_session::duration::{self, MILLISECOND, SECOND, Seconds};
use fastrand::Rng;
use serde_json::{Value, json};

/// Parses a duration by the definition: whole nanoseconds of each part, in integers that are large
/// enough.
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
        if let Some(tail) = rest.strip_prefix('.') {
            fraction = tail.chars().take_while(char::is_ascii_digit).collect();
            rest = &tail[fraction.len()..];
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

fn pick<T: Copy>(rng: &mut Rng, values: &[T]) -> T {
    values[rng.usize(..values.len())]
}

#[test]
fn generated_durations_parse_exactly() {
    let mut rng = Rng::with_seed(20);
    let mut accepted = 0;
    for _ in 0..20_000 {
        let mut text = pick(&mut rng, &["", "", "", "-", "+"]).to_string();
        for _ in 0..rng.usize(..4) {
            text += pick(&mut rng, &["", "0", "1", "20", "59", "600", "2562047", "9223372036"]);
            if rng.usize(..3) == 0 {
                text += pick(&mut rng, &[".", ".0", ".5", ".25", ".001", ".123456789", ".999999"]);
            }
            text += pick(&mut rng, &["s", "s", "s", "m", "h", "ms", "us", "µs", "μs", "ns", "", "d", "S", " "]);
        }
        let expected = exact(&text);
        assert_eq!(duration::parse_go(&text), expected, "{text:?}");
        accepted += usize::from(expected.is_some());
    }
    assert!(accepted > 5_000, "{accepted}");
}

#[test]
fn formatted_durations_parse_as_the_same_value() {
    let mut rng = Rng::with_seed(15);
    for _ in 0..5_000 {
        // Any size, and rounded as durations usually are.
        let rounded = pick(&mut rng, &[1, 1_000, MILLISECOND, SECOND, 60 * SECOND]);
        let nanoseconds = (rng.i64(..) >> rng.usize(..63)) / rounded * rounded;
        assert_eq!(duration::parse_go(&duration::format(nanoseconds)), Some(nanoseconds));
        let written = serde_json::to_string(&Seconds(nanoseconds)).unwrap();
        assert_eq!(duration::parse(&written), Some(nanoseconds), "{written}");
    }
}

#[test]
fn seconds_parse_alike_as_number_and_as_text() {
    let mut rng = Rng::with_seed(60);
    for _ in 0..5_000 {
        let milliseconds = rng.i64(0..86_400_000);
        let text = format!("{}.{:03}", milliseconds / 1_000, milliseconds % 1_000);
        assert_eq!(duration::from_seconds(text.parse().unwrap()), Some(milliseconds * MILLISECOND), "{text}");
        assert_eq!(duration::parse(&text), Some(milliseconds * MILLISECOND), "{text}");
    }
}

#[test]
fn fractions_of_a_millisecond_are_rejected_as_number_and_as_text() {
    for text in ["0.0005", "15.0001", "0.0000001", "0.000000001", "-0.0000001", "1.0000004"] {
        for value in [Value::from(text.parse::<f64>().unwrap()), json!(text)] {
            let result = Options::default().set("delay", &value);
            assert!(result.is_err(), "{value:?}");
        }
    }
}
