//! Builders for tests.

use std::sync::Arc;

use super::{Index, Settings};
use crate::object::{Decoded, Object, decode};
use crate::source::yaml;

/// Objects out of a multi-document text; anything wrong with it fails the test.
pub(crate) fn yaml_objects(text: &str) -> Vec<Arc<Object>> {
    let one = |d: yaml::Document<'_>| match decode(yaml::parse(d.text).unwrap()).unwrap() {
        Decoded::Object(object) => Arc::new(*object),
        other => panic!("{other:?}"),
    };
    yaml::split(text).into_iter().map(one).collect()
}

/// An index that holds objects, not published yet.
pub(crate) fn index_of(objects: Vec<Arc<Object>>) -> Index {
    let mut index = Index::new(Settings::default());
    objects.into_iter().for_each(|o| index.apply(o));
    index
}
