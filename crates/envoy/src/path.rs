//! Where in a message a problem is, as a list on the stack: it costs nothing until it is printed.

use std::fmt;

/// A place in a message. Prints as `filter_chains[0].filters[1].typed_config<HttpConnectionManager>.stat_prefix`.
#[derive(Clone, Copy)]
pub(crate) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    Key(&'a str),
    Unpacked(&'a str),
}

impl<'a> Path<'a> {
    pub(crate) const ROOT: Path<'static> = Path { parent: None, step: Step::Root };

    pub(crate) fn field(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Field(name) }
    }

    pub(crate) fn index(&'a self, index: usize) -> Path<'a> {
        Path { parent: Some(self), step: Step::Index(index) }
    }

    pub(crate) fn key(&'a self, key: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Key(key) }
    }

    /// The content of an Any; takes a full type name and shows its last part.
    pub(crate) fn unpacked(&'a self, type_name: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Unpacked(type_name.rsplit('.').next().unwrap_or(type_name)) }
    }

    fn is_start(&self) -> bool {
        matches!(self.step, Step::Root)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        let separator = if self.parent.is_none_or(Path::is_start) { "" } else { "." };
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) => write!(f, "{separator}{name}"),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key:?}]"),
            Step::Unpacked(name) => write!(f, "<{name}>"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_every_kind_of_step() {
        let root = Path::ROOT;
        let (a, b, c, d) = (root.field("a"), 3, "k", "x.y.Z");
        let (a, b) = (a, a.index(b));
        let c = b.key(c);
        let d = c.unpacked(d);
        assert_eq!(d.field("name").to_string(), r#"a[3]["k"]<Z>.name"#);
        assert_eq!((root.to_string(), a.to_string()), (String::new(), "a".to_owned()));
    }
}
