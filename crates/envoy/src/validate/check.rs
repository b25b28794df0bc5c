//! Tests of single values.

use std::fmt::Display;
use std::net::IpAddr;

use regex::Regex;

/// A decoded scalar.
#[derive(Clone, Copy)]
pub(super) enum Scalar<'b> {
    Int(i128),
    Float(f64),
    Bool(bool),
    Text(&'b str),
    Bytes(&'b [u8]),
}

/// The rules of one value, by its kind.
pub(super) enum Check {
    Int(Range<i128>),
    Float(Range<f64>),
    Bool(bool),
    Text(Box<TextRules>),
    Bytes(BytesRules),
    Enum(EnumRules),
    /// In nanoseconds.
    Duration(Range<i128>),
    /// The type URLs of an Any.
    TypeUrl(Choice<String>),
}

impl Check {
    /// What the value breaks, if anything.
    pub(super) fn broken(&self, value: Scalar<'_>) -> Option<String> {
        match (self, value) {
            (Check::Int(range), Scalar::Int(v)) => range.broken(v, |n| n.to_string()),
            (Check::Duration(range), Scalar::Int(v)) => range.broken(v, |n| format!("{}s", n as f64 / 1e9)),
            (Check::Float(range), Scalar::Float(v)) => range.broken(v, |n| n.to_string()),
            (Check::Bool(wanted), Scalar::Bool(v)) => (v != *wanted).then(|| format!("must be {wanted}")),
            (Check::Text(rules), Scalar::Text(v)) => rules.broken(v),
            (Check::Bytes(rules), Scalar::Bytes(v)) => rules.broken(v),
            (Check::Enum(rules), Scalar::Int(v)) => rules.broken(v),
            (Check::TypeUrl(choice), Scalar::Text(v)) => choice.broken(|listed| listed == v),
            // Rules of another kind than the field: no such rule compiles.
            _ => None,
        }
    }

    /// Lengths in bytes, from and to, with which text holds the rules whatever else it is.
    pub(super) fn by_len(&self) -> Option<(u32, u32)> {
        let Check::Text(rules) = self else { return None };
        let TextRules { bytes, chars, .. } = &**rules;
        if !rules.is_of_len_only() || bytes.exact.is_some() || chars.exact.is_some() {
            return None;
        }
        // A character has four bytes at most.
        let fewest = chars.min.map(|min| min.saturating_sub(1) * 4 + min.min(1));
        let min = bytes.min.max(fewest).unwrap_or_default();
        let max = [bytes.max, chars.max].into_iter().flatten().min().unwrap_or(u32::MAX.into());
        Some((u32::try_from(min).ok()?, u32::try_from(max).unwrap_or(u32::MAX)))
    }

    /// The number up to which, from 0, all numbers hold the rules.
    pub(super) fn up_to(&self) -> Option<u64> {
        let max = match self {
            Check::Int(Range { choice, lower, upper, ignore_empty: false }) if choice.is_free() => {
                // A lower end above zero is not for here, and one above the upper means something else.
                if lower.is_some_and(|low| low.at > 0 || (low.at == 0 && !low.inclusive)) {
                    return None;
                }
                upper.map_or(i64::MAX.into(), |high| if high.inclusive { high.at } else { high.at - 1 })
            }
            Check::Enum(EnumRules { defined: Some(defined), choice }) if choice.is_free() => {
                let zero = defined.binary_search(&0).ok()?;
                (0..).zip(&defined[zero..]).take_while(|(n, defined)| n == *defined).map(|(n, _)| n).last()?
            }
            _ => return None,
        };
        u64::try_from(max).ok().filter(|max| *max <= i64::MAX as u64)
    }
}

/// `const`, `in` and `not_in` of any kind.
pub(super) struct Choice<T> {
    pub(super) exactly: Option<T>,
    pub(super) one_of: Vec<T>,
    pub(super) none_of: Vec<T>,
}

impl<T> Default for Choice<T> {
    fn default() -> Self {
        Choice { exactly: None, one_of: Vec::new(), none_of: Vec::new() }
    }
}

impl<T> Choice<T> {
    fn is_free(&self) -> bool {
        self.exactly.is_none() && self.one_of.is_empty() && self.none_of.is_empty()
    }
}

impl<T: std::fmt::Debug> Choice<T> {
    fn broken(&self, is: impl Fn(&T) -> bool) -> Option<String> {
        if let Some(wanted) = self.exactly.as_ref().filter(|wanted| !is(wanted)) {
            return Some(format!("must be {wanted:?}"));
        }
        if !self.one_of.is_empty() && !self.one_of.iter().any(&is) {
            return Some(format!("must be one of {:?}", self.one_of));
        }
        self.none_of.iter().any(is).then(|| format!("must be none of {:?}", self.none_of))
    }
}

/// Rules of numbers.
pub(super) struct Range<T> {
    pub(super) choice: Choice<T>,
    pub(super) lower: Option<Bound<T>>,
    pub(super) upper: Option<Bound<T>>,
    pub(super) ignore_empty: bool,
}

/// An end of a [`Range`].
#[derive(Clone, Copy)]
pub(super) struct Bound<T> {
    pub(super) at: T,
    pub(super) inclusive: bool,
}

impl<T> Default for Range<T> {
    fn default() -> Self {
        Range { choice: Choice::default(), lower: None, upper: None, ignore_empty: false }
    }
}

impl<T: Copy + PartialOrd + Default + Display + std::fmt::Debug> Range<T> {
    fn broken(&self, value: T, show: impl Fn(T) -> String) -> Option<String> {
        if self.ignore_empty && value == T::default() {
            return None;
        }
        let above = self.lower.is_none_or(|low| value > low.at || (low.inclusive && value == low.at));
        let below = self.upper.is_none_or(|high| value < high.at || (high.inclusive && value == high.at));
        // Ends in reverse order mean everything but what is between them.
        let outside = matches!((self.lower, self.upper), (Some(low), Some(high)) if low.at > high.at);
        if if outside { above || below } else { above && below } {
            return self.choice.broken(|listed| *listed == value);
        }
        let low = self.lower.map(|b| format!("{} {}", if b.inclusive { "at least" } else { "greater than" }, show(b.at)));
        let high = self.upper.map(|b| format!("{} {}", if b.inclusive { "at most" } else { "less than" }, show(b.at)));
        let ends: Vec<String> = low.into_iter().chain(high).collect();
        Some(format!("must be {}", ends.join(if outside { " or " } else { " and " })))
    }
}

/// Bounds of a length, in whatever unit.
#[derive(Default)]
pub(super) struct Length {
    pub(super) exact: Option<u64>,
    pub(super) min: Option<u64>,
    pub(super) max: Option<u64>,
}

impl Length {
    pub(super) fn broken(&self, len: u64, unit: &str) -> Option<String> {
        let amount = |n: u64| if n == 1 { format!("1 {unit}") } else { format!("{n} {unit}s") };
        if let Some(exact) = self.exact.filter(|exact| len != *exact) {
            return Some(format!("must have exactly {}", amount(exact)));
        }
        if let Some(min) = self.min.filter(|min| len < *min) {
            return Some(format!("must have at least {}", amount(min)));
        }
        self.max.filter(|max| len > *max).map(|max| format!("must have at most {}", amount(max)))
    }

    /// Whether text of so many bytes holds these bounds however many characters that is: nobody has to count them.
    fn holds_by_bytes(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        self.exact.is_none() && self.min.is_none_or(|min| bytes.div_ceil(4) >= min) && self.max.is_none_or(|max| bytes <= max)
    }
}

/// Rules of strings.
#[derive(Default)]
pub(super) struct TextRules {
    pub(super) choice: Choice<String>,
    pub(super) chars: Length,
    pub(super) bytes: Length,
    pub(super) pattern: Option<Regex>,
    pub(super) prefix: Option<String>,
    pub(super) suffix: Option<String>,
    pub(super) contains: Option<String>,
    pub(super) not_contains: Option<String>,
    pub(super) format: Option<Format>,
    pub(super) ignore_empty: bool,
}

/// Formats that rules name.
#[derive(Clone, Copy)]
pub(super) enum Format {
    Ip,
    Ipv4,
    Ipv6,
    /// RFC 9110's field name, with a leading colon for pseudo headers.
    HeaderName,
    HeaderValue,
    /// Only what would break the framing is refused; may be empty, for names too.
    Loose,
}

impl TextRules {
    fn is_of_len_only(&self) -> bool {
        let TextRules { choice, chars: _, bytes: _, pattern, prefix, suffix, contains, not_contains, format, ignore_empty } = self;
        let parts = [prefix, suffix, contains, not_contains];
        choice.is_free() && pattern.is_none() && parts.iter().all(|part| part.is_none()) && format.is_none() && !ignore_empty
    }

    fn broken(&self, v: &str) -> Option<String> {
        if self.ignore_empty && v.is_empty() {
            return None;
        }
        if !self.chars.holds_by_bytes(v.len())
            && let Some(broken) = self.chars.broken(v.chars().count() as u64, "character")
        {
            return Some(broken);
        }
        if let Some(broken) = self.bytes.broken(v.len() as u64, "byte") {
            return Some(broken);
        }
        if let Some(pattern) = self.pattern.as_ref().filter(|p| !p.is_match(v)) {
            return Some(format!("must match {:?}", pattern.as_str()));
        }
        if let Some(wanted) = self.prefix.as_ref().filter(|wanted| !v.starts_with(wanted.as_str())) {
            return Some(format!("must start with {wanted:?}"));
        }
        if let Some(wanted) = self.suffix.as_ref().filter(|wanted| !v.ends_with(wanted.as_str())) {
            return Some(format!("must end with {wanted:?}"));
        }
        if let Some(wanted) = self.contains.as_ref().filter(|wanted| !v.contains(wanted.as_str())) {
            return Some(format!("must contain {wanted:?}"));
        }
        if let Some(refused) = self.not_contains.as_ref().filter(|refused| v.contains(refused.as_str())) {
            return Some(format!("must not contain {refused:?}"));
        }
        self.format.and_then(|format| format.broken(v)).or_else(|| self.choice.broken(|listed| listed == v))
    }
}

impl Format {
    fn broken(self, v: &str) -> Option<String> {
        const LINE: [u8; 3] = [0, b'\n', b'\r'];
        let ip = v.parse::<IpAddr>();
        let (holds, wanted) = match self {
            Format::Ip => (ip.is_ok(), "an IP address"),
            Format::Ipv4 => (ip.is_ok_and(|ip| ip.is_ipv4()), "an IPv4 address"),
            Format::Ipv6 => (ip.is_ok_and(|ip| ip.is_ipv6()), "an IPv6 address"),
            Format::HeaderName => {
                let name = v.strip_prefix(':').unwrap_or(v);
                (!name.is_empty() && name.bytes().all(is_name_byte), "an HTTP header name")
            }
            Format::HeaderValue => (v.bytes().all(|b| b == b'\t' || (b >= 0x20 && b != 0x7f)), "an HTTP header value"),
            Format::Loose => (!v.bytes().any(|b| LINE.contains(&b)), "without line breaks and NUL"),
        };
        (!holds).then(|| format!("must be {wanted}"))
    }
}

/// Envoy's rule counts the comma in: its pattern has a range from plus to dot.
fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+,-.^_|~`".contains(&b)
}

/// Rules of bytes.
#[derive(Default)]
pub(super) struct BytesRules {
    pub(super) len: Length,
    pub(super) prefix: Vec<u8>,
    pub(super) suffix: Vec<u8>,
    pub(super) choice: Choice<Vec<u8>>,
    pub(super) ignore_empty: bool,
}

impl BytesRules {
    fn broken(&self, v: &[u8]) -> Option<String> {
        if self.ignore_empty && v.is_empty() {
            return None;
        }
        if let Some(broken) = self.len.broken(v.len() as u64, "byte") {
            return Some(broken);
        }
        if !v.starts_with(&self.prefix) || !v.ends_with(&self.suffix) {
            return Some(format!("must start with {:?} and end with {:?}", self.prefix, self.suffix));
        }
        self.choice.broken(|listed| listed == v)
    }
}

/// Rules of enums.
#[derive(Default)]
pub(super) struct EnumRules {
    /// Set if only these numbers are allowed; sorted.
    pub(super) defined: Option<Vec<i128>>,
    pub(super) choice: Choice<i128>,
}

impl EnumRules {
    fn broken(&self, v: i128) -> Option<String> {
        if self.defined.as_ref().is_some_and(|defined| defined.binary_search(&v).is_err()) {
            return Some(format!("must be a defined value, not {v}"));
        }
        self.choice.broken(|listed| *listed == v)
    }
}
