//! [`Strings`]: equal strings of different objects share one allocation, and so do equal templates of Pods.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pilotfish_model::name::Str;

use crate::convert::PodTemplate;

/// A pool of what is shared; clones share it. Labels, namespaces, nodes and accounts repeat in thousands of objects.
#[derive(Clone, Debug, Default)]
pub struct Strings(Arc<Mutex<Pools>>);

#[derive(Debug, Default)]
struct Pools {
    strings: Pool<str>,
    templates: Pool<PodTemplate>,
}

#[derive(Debug)]
struct Pool<T: ?Sized + Hash + Eq> {
    values: HashSet<Arc<T>>,
    /// At which size those that nobody uses any more are dropped.
    limit: usize,
}

/// Below this many there is nothing to gain from dropping any.
const MIN_LIMIT: usize = 1024;

impl Strings {
    /// The one string with this text.
    pub fn share(&self, text: &str) -> Str {
        self.lock().strings.share(text, || text.into())
    }

    /// The one template like this.
    pub fn share_template(&self, template: PodTemplate) -> Arc<PodTemplate> {
        self.lock().templates.share(&template, || Arc::new(template.clone()))
    }

    /// A panic while it was held leaves valid sets.
    fn lock(&self) -> MutexGuard<'_, Pools> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ?Sized + Hash + Eq> Pool<T> {
    fn share(&mut self, value: &T, make: impl FnOnce() -> Arc<T>) -> Arc<T>
    where
        Arc<T>: Borrow<T>,
    {
        if let Some(known) = self.values.get(value) {
            return known.clone();
        }
        if self.values.len() >= self.limit {
            self.values.retain(|v| Arc::strong_count(v) > 1);
            // Twice what is in use: each purge is paid for by as many additions.
            self.limit = MIN_LIMIT.max(self.values.len() * 2);
        }
        let new = make();
        self.values.insert(new.clone());
        new
    }
}

impl<T: ?Sized + Hash + Eq> Default for Pool<T> {
    fn default() -> Self {
        Pool { values: HashSet::new(), limit: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_are_one_and_unused_ones_go() {
        let strings = Strings::default();
        let (a, b) = (strings.share("app"), strings.clone().share("app"));
        assert!(Arc::ptr_eq(&a, &b));
        for i in 0..10 * MIN_LIMIT {
            strings.share(&i.to_string());
        }
        assert!(strings.lock().strings.values.len() <= MIN_LIMIT);
        assert!(Arc::ptr_eq(&a, &strings.share("app")));
        let template = || PodTemplate { labels: [(a.clone(), "web".into())].into(), ..PodTemplate::default() };
        assert!(Arc::ptr_eq(&strings.share_template(template()), &strings.share_template(template())));
    }
}
