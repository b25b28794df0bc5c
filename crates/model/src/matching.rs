//! String matches, with patterns that were compiled once to see that they do.

use std::fmt;

use crate::name::Str;

/// How a text is compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StringMatch {
    /// Equal.
    Exact(Str),
    /// Starts with.
    Prefix(Str),
    /// Matches the whole text; RE2 syntax, as Envoy compiles it.
    Regex(Pattern),
}

/// A regular expression of a user, known to compile and to stay within [`Pattern::MAX_BYTES`] and the program-size budget.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(Str);

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// Longer than any sane pattern.
    #[error("the pattern has {0} bytes; at most {max} are accepted", max = Pattern::MAX_BYTES)]
    TooLong(usize),
    /// Envoy would refuse it, or it would grow too large.
    #[error("the pattern does not compile: {0}")]
    Invalid(String),
}

impl Pattern {
    /// The longest pattern that is accepted, in bytes.
    pub const MAX_BYTES: usize = 16 * 1024;

    /// Checks and keeps a pattern. Rust's syntax and RE2's agree on what users write; both are linear in time.
    pub fn new(text: &str) -> Result<Self, BadPattern> {
        if text.len() > Self::MAX_BYTES {
            return Err(BadPattern::TooLong(text.len()));
        }
        match build(text, 10 << 20) {
            Ok(_) => Ok(Pattern(text.into())),
            Err(e) => Err(BadPattern::Invalid(e.to_string().lines().last().unwrap_or_default().trim().to_owned())),
        }
    }

    /// The pattern's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Ready to look for it anywhere in texts, of which many may be kept. `None`: it is too large for that.
    pub fn search(&self) -> Option<Search> {
        build(&self.0, Search::MAX_BYTES).map(Search).ok()
    }
}

/// Looks for a [`Pattern`], in time that is linear in the text.
#[derive(Clone, Debug)]
pub struct Search(regex::Regex);

impl Search {
    /// The largest program, in bytes.
    pub const MAX_BYTES: usize = 256 << 10;

    /// Whether some part of the text matches.
    pub fn finds(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

fn build(text: &str, limit: usize) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(text).size_limit(limit).dfa_size_limit(limit).build()
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_envoy_would_refuse_are_refused() {
        assert!(Pattern::new("^/v[12]/.*").is_ok());
        assert!(matches!(Pattern::new("("), Err(BadPattern::Invalid(_))));
        assert!(matches!(Pattern::new("(a{1000}){1000}{1000}"), Err(BadPattern::Invalid(_))));
        assert!(matches!(Pattern::new(&"a".repeat(20_000)), Err(BadPattern::TooLong(_))));
        // Fine to send, too large to keep ready.
        let large = Pattern::new("(a{100}){100}").unwrap();
        let finds = |text: &str| Pattern::new("^1\\.29").unwrap().search().map(|s| s.finds(text));
        assert_eq!((large.search().is_none(), finds("1.29.1"), finds("11.29")), (true, Some(true), Some(false)));
    }
}
