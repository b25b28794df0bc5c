//! Whether a text is an expression of the Common Expression Language: its grammar, and the functions that Envoy knows.
//!
//! Envoy parses such expressions with the listener that holds them and refuses the whole listener otherwise, so one that does
//! not parse must not get there. Names of attributes are not checked: to an unknown one Envoy finds no value later.

/// Longest expression that is accepted, in bytes.
pub const MAX_BYTES: usize = 16 * 1024;
/// Deepest nesting: parsers recurse.
const MAX_DEPTH: usize = 64;

/// Functions and macros, of the standard and of its extensions for texts.
const FUNCTIONS: &[&str] = &[
    "all",
    "bool",
    "bytes",
    "charAt",
    "contains",
    "decode",
    "double",
    "duration",
    "dyn",
    "encode",
    "endsWith",
    "exists",
    "exists_one",
    "filter",
    "format",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "has",
    "indexOf",
    "int",
    "join",
    "lastIndexOf",
    "lowerAscii",
    "map",
    "matches",
    "replace",
    "size",
    "split",
    "startsWith",
    "string",
    "substring",
    "timestamp",
    "trim",
    "type",
    "uint",
    "upperAscii",
];

/// Why a text is no expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadExpression {
    /// There is nothing.
    #[error("the expression is empty")]
    Empty,
    /// It is too long.
    #[error("the expression has {0} bytes; at most {MAX_BYTES} are accepted")]
    TooLong(usize),
    /// It is nested too deeply.
    #[error("the expression is nested too deeply")]
    TooDeep,
    /// The grammar wants something else.
    #[error("the expression is not CEL: column {column}: expected {expected}")]
    Unexpected {
        /// Where, in characters from 1.
        column: usize,
        /// What should be there.
        expected: &'static str,
    },
    /// Proxies do not know that function.
    #[error("the expression calls {0:?}, which is no function of CEL")]
    UnknownFunction(String),
}

/// Reads a text as an expression.
pub fn check(text: &str) -> Result<(), BadExpression> {
    if text.trim().is_empty() {
        return Err(BadExpression::Empty);
    }
    if text.len() > MAX_BYTES {
        return Err(BadExpression::TooLong(text.len()));
    }
    let mut parser = Parser { text, at: 0, depth: 0 };
    parser.expression()?;
    parser.space();
    if parser.at < text.len() { Err(parser.unexpected("the end")) } else { Ok(()) }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

type Outcome = Result<(), BadExpression>;

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn unexpected(&self, expected: &'static str) -> BadExpression {
        BadExpression::Unexpected { column: self.text[..self.at].chars().count() + 1, expected }
    }

    /// White space and comments.
    fn space(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']);
            self.at += rest.len() - trimmed.len();
            match trimmed.starts_with("//") {
                true => self.at += trimmed.find('\n').unwrap_or(trimmed.len()),
                false => return,
            }
        }
    }

    fn takes(&mut self, token: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn needs(&mut self, token: &'static str) -> Outcome {
        if self.takes(token) { Ok(()) } else { Err(self.unexpected(token)) }
    }

    fn expression(&mut self) -> Outcome {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(BadExpression::TooDeep);
        }
        self.operands()?;
        if self.takes("?") {
            self.operands()?;
            self.needs(":")?;
            self.expression()?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Operands with operators between; which binds tighter makes no difference to whether they are well formed.
    fn operands(&mut self) -> Outcome {
        loop {
            self.unary()?;
            if !self.operator() {
                return Ok(());
            }
        }
    }

    fn operator(&mut self) -> bool {
        const OPERATORS: [&str; 13] = ["||", "&&", "<=", ">=", "==", "!=", "<", ">", "+", "-", "*", "/", "%"];
        if OPERATORS.iter().any(|o| self.takes(o)) {
            return true;
        }
        let before = self.at;
        let found = self.identifier() == Some("in");
        self.at = if found { self.at } else { before };
        found
    }

    fn unary(&mut self) -> Outcome {
        let not = self.takes("!");
        let negated = !not && self.takes("-");
        while (not && self.takes("!")) || (negated && self.takes("-")) {}
        self.primary()?;
        loop {
            if self.takes("[") {
                self.expression()?;
                self.needs("]")?;
            } else if self.takes(".") {
                let name = self.identifier().ok_or_else(|| self.unexpected("a field"))?;
                if self.takes("(") {
                    self.arguments(name)?;
                }
            } else {
                return Ok(());
            }
        }
    }

    fn primary(&mut self) -> Outcome {
        if self.takes("(") {
            self.expression()?;
            return self.needs(")");
        }
        if self.takes("[") {
            return self.items("]", false);
        }
        if self.takes("{") {
            return self.items("}", true);
        }
        if self.literal()? {
            return Ok(());
        }
        self.takes(".");
        match self.identifier() {
            None | Some("in") => Err(self.unexpected("a value")),
            Some(name) if self.takes("(") => self.arguments(name),
            Some(_) => Ok(()),
        }
    }

    fn arguments(&mut self, function: &str) -> Outcome {
        if !FUNCTIONS.contains(&function) {
            return Err(BadExpression::UnknownFunction(function.to_owned()));
        }
        if self.takes(")") {
            return Ok(());
        }
        loop {
            self.expression()?;
            if !self.takes(",") {
                return self.needs(")");
            }
        }
    }

    /// Of a list or a map. The last may be followed by a comma.
    fn items(&mut self, end: &'static str, pairs: bool) -> Outcome {
        while !self.takes(end) {
            self.expression()?;
            if pairs {
                self.needs(":")?;
                self.expression()?;
            }
            if !self.takes(",") {
                return self.needs(end);
            }
        }
        Ok(())
    }

    fn identifier(&mut self) -> Option<&'a str> {
        self.space();
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let name = &rest[..end];
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        self.at += end;
        Some(name)
    }

    /// A number or a text; true if there is one.
    fn literal(&mut self) -> Result<bool, BadExpression> {
        self.space();
        let rest = self.rest();
        let prefix = rest.find(|c: char| !matches!(c, 'r' | 'R' | 'b' | 'B')).unwrap_or(rest.len());
        if prefix <= 2 && rest[prefix..].starts_with(['"', '\'']) {
            let raw = rest[..prefix].contains(['r', 'R']);
            self.at += prefix;
            return self.quoted(raw).map(|()| true);
        }
        let digits = rest.strip_prefix('.').unwrap_or(rest);
        if !digits.starts_with(|c: char| c.is_ascii_digit()) {
            return Ok(false);
        }
        self.number()
    }

    fn number(&mut self) -> Result<bool, BadExpression> {
        let rest = self.rest();
        let hexadecimal = rest.starts_with("0x") || rest.starts_with("0X");
        let mut end = 0;
        for (i, c) in rest.char_indices() {
            let exponent = !hexadecimal && matches!(rest.as_bytes().get(i.wrapping_sub(1)), Some(b'e' | b'E')) && matches!(c, '+' | '-');
            if !(c.is_ascii_alphanumeric() || c == '.' || exponent) {
                break;
            }
            end = i + c.len_utf8();
        }
        let number = &rest[..end];
        let whole = number.strip_suffix(['u', 'U']).unwrap_or(number);
        let good = match whole.get(..2) {
            Some("0x" | "0X") => u64::from_str_radix(&whole[2..], 16).is_ok(),
            _ => whole.parse::<u64>().is_ok() || (whole.len() == number.len() && whole.parse::<f64>().is_ok()),
        };
        if !good {
            return Err(self.unexpected("a number"));
        }
        self.at += end;
        Ok(true)
    }

    fn quoted(&mut self, raw: bool) -> Outcome {
        let rest = self.rest();
        let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|q| rest.starts_with(q)).unwrap_or("\"");
        let mut at = quote.len();
        loop {
            let inside = &rest[at..];
            if inside.starts_with(quote) {
                self.at += at + quote.len();
                return Ok(());
            }
            let mut characters = inside.chars();
            let step = match characters.next() {
                None => return Err(self.unexpected("the end of a text")),
                Some('\n' | '\r') if quote.len() == 1 => return Err(self.unexpected("the end of a text on its line")),
                Some('\\') if !raw => 1 + characters.next().map_or(0, char::len_utf8),
                Some(c) => c.len_utf8(),
            };
            at += step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_told_from_other_texts() {
        for good in [
            "response.code >= 400",
            "!has(request.headers['x-a']) || request.headers[\"x-a\"].startsWith('b')",
            "connection.mtls ? 'yes' : (response.code in [200, 201,] ? \"a\" : '''b\nc''')",
            "{'a': 1, 'b': 0x1F, 'c': 1.5e-3, 'd': 3u}.size() > -1",
            "--1 < .5 && r'\\d' != b\"x\" // why",
            "[1, 2].exists(x, x == int(request.headers['n']))",
            "xds.cluster_metadata.filter_metadata['istio']['services'][0].host",
            "'one'",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let unexpected = |column, expected| Err(BadExpression::Unexpected { column, expected });
        let rows = [
            ("", Err(BadExpression::Empty)),
            (" \n", Err(BadExpression::Empty)),
            ("response.code >=", unexpected(17, "a value")),
            ("response.code = 4", unexpected(15, "the end")),
            ("a b", unexpected(3, "the end")),
            ("(a", unexpected(3, ")")),
            ("a[1", unexpected(4, "]")),
            ("a ? b", unexpected(6, ":")),
            ("'é' + \"a", unexpected(7, "the end of a text")),
            ("'a\nb'", unexpected(1, "the end of a text on its line")),
            ("a.", unexpected(3, "a field")),
            ("1.5.5", unexpected(1, "a number")),
            ("%", unexpected(1, "a value")),
            ("lower(a)", Err(BadExpression::UnknownFunction("lower".to_owned()))),
            ("a.b.c(1)", Err(BadExpression::UnknownFunction("c".to_owned()))),
        ];
        for (text, expected) in rows {
            assert_eq!(check(text), expected, "{text}");
        }
        assert_eq!(check(&"(".repeat(10_000)), Err(BadExpression::TooDeep));
        assert_eq!(check(&"a".repeat(20_000)), Err(BadExpression::TooLong(20_000)));
    }
}
