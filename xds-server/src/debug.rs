//! stub
use crate::Translate;
use crate::store::Store;
use std::sync::Arc;
/// stub
pub struct Debug<T: Translate> {
    store: Arc<Store<T>>,
}
impl<T: Translate> Debug<T> {
    pub(crate) fn new(store: Arc<Store<T>>) -> Self {
        Debug { store }
    }
}
