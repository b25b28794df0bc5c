//! `x-forwarded-client-cert`: elements separated by commas, each `key=value;key=value`, values quoted where they must be.

use pilotfish_model::Identity;

/// Whom the proxy that sent us the header saw: the last element, which it wrote itself. One name only.
pub(super) fn identity(header: &str) -> Option<Identity> {
    let element = split(header, ',').pop()?;
    let mut uris = split(element, ';').into_iter().filter_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        key.trim().eq_ignore_ascii_case("uri").then(|| value.trim().trim_matches('"').to_owned())
    });
    let uri = uris.next()?;
    if uris.next().is_some() {
        return None;
    }
    uri.parse().ok()
}

/// Splits outside of quotes.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(|c: char| {
        let is_quote = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        quoted ^= is_quote;
        c == separator && !quoted
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hop_counts() {
        let rows = [
            ("By=spiffe://td/ns/g/sa/gw;Hash=ab;URI=spiffe://td/ns/a/sa/b", Some("spiffe://td/ns/a/sa/b")),
            (
                "URI=spiffe://td/ns/evil/sa/x,By=y;Subject=\"CN=a,URI=spiffe://td/ns/c/sa/d\";URI=spiffe://td/ns/a/sa/b",
                Some("spiffe://td/ns/a/sa/b"),
            ),
            ("URI=spiffe://td/ns/a/sa/b,Hash=0", None),
            ("URI=spiffe://td/ns/a/sa/b;URI=spiffe://td/ns/a/sa/c", None),
            ("Subject=\"\\\";URI=spiffe://td/ns/a/sa/b\"", None),
            ("", None),
        ];
        for (header, expected) in rows {
            assert_eq!(identity(header).map(|i| i.to_string()).as_deref(), expected, "{header}");
        }
    }
}
