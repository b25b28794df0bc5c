//! Kubernetes quantities in their canonical form, so that what we write is what the API server would store.

/// Suffixes with their size in billionths, largest first.
const DECIMAL: &[(&str, i128)] = &[
    ("E", 1_000_000_000_000_000_000_000_000_000),
    ("P", 1_000_000_000_000_000_000_000_000),
    ("T", 1_000_000_000_000_000_000_000),
    ("G", 1_000_000_000_000_000_000),
    ("M", 1_000_000_000_000_000),
    ("k", 1_000_000_000_000),
    ("", 1_000_000_000),
    ("m", 1_000_000),
    ("u", 1_000),
    ("n", 1),
];

const BINARY: &[(&str, i128)] =
    &[("Ei", NANO << 60), ("Pi", NANO << 50), ("Ti", NANO << 40), ("Gi", NANO << 30), ("Mi", NANO << 20), ("Ki", NANO << 10)];

const NANO: i128 = 1_000_000_000;

/// The canonical form; `None` if it is no quantity. An exponent is kept as it is.
pub(crate) fn canonical(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-')).unwrap_or(text.len());
    let (digits, suffix) = text.split_at_checked(end)?;
    let value = billionths(digits)?;
    let exponent = suffix.strip_prefix(['e', 'E']).filter(|rest| !rest.is_empty());
    if let Some(exponent) = exponent {
        return exponent.parse::<i8>().ok().map(|_| text.to_owned());
    }
    let sizes = || BINARY.iter().chain(DECIMAL);
    let (_, size) = sizes().find(|(s, _)| *s == suffix)?;
    // More precise than a billionth is rounded up, as Kubernetes does.
    let value = value.checked_mul(*size)?;
    let value = value.div_euclid(NANO) + i128::from(value.rem_euclid(NANO) != 0);
    let binary = BINARY.iter().any(|(s, _)| *s == suffix) && value.abs() >= 1024 * NANO;
    if value == 0 {
        return Some("0".to_owned());
    }
    let fits = |(_, size): &&(&str, i128)| value % size == 0;
    let (suffix, size) =
        if binary { BINARY.iter().find(fits).or_else(|| DECIMAL.iter().find(fits))? } else { DECIMAL.iter().find(fits)? };
    Some(format!("{}{suffix}", value / size))
}

fn billionths(digits: &str) -> Option<i128> {
    let (negative, digits) = match digits.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, digits.strip_prefix('+').unwrap_or(digits)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() || !whole.chars().chain(fraction.chars()).all(|c| c.is_ascii_digit()) {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: i128 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let value = whole.checked_mul(NANO)?.checked_add(fraction)?;
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn forms() {
        for (text, wanted) in [
            ("2000m", "2"),
            ("100m", "100m"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("128Mi", "128Mi"),
            ("0", "0"),
            ("0.1", "100m"),
            ("1000", "1k"),
            ("512Ki", "512Ki"),
            ("1e3", "1e3"),
            ("-1", "-1"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(wanted), "{text}");
        }
        for text in ["", "abc", "1 Gi", "1gi", ".", "1e", "99999999999999999999999999999999999999E", "é"] {
            assert_eq!(canonical(text), None, "{text}");
        }
    }
}
